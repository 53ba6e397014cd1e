// Prepares x, splits the work into tasks and runs the kernels of an instruction set: what lut_matmul and lut_conv2d share.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_DRIVER_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_DRIVER_H_

#include <cstddef>
#include <cstdint>

#include "core/parallel.h"
#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

// Where the rows of x come from. `row` returns the K values of row m, in place or written to `scratch` (K floats; null unless
// needs_scratch). It is called from several threads.
struct RowSource {
  const void* context;
  const float* (*row)(const void* context, int64_t m, float* scratch);
  bool needs_scratch;
};

// Where the products go: y[m * row_stride + n * column_stride] = sum + bias[n]; bias may be null.
struct ProductSink {
  float* y;
  int64_t row_stride;
  int64_t column_stride;
  const float* bias;
};

// Rows of x are cut at multiples of this, into passes and between threads. Variants multiply groups of rows, and some round
// differently in a smaller group: only the last rows are in one, however many threads there are.
constexpr int64_t kRowGroup = 16;

// How a product of at most `rows` rows is cut up, and where each part of the workspace starts.
struct LutMatMulPlan {
  LutLayout layout;
  ec_compute compute;
  int64_t rows_at_once;  // rows of x that are prepared and multiplied before the next ones
  int64_t blocks_per_chunk;
  int64_t max_tasks;
  size_t values;      // prepared x of a chunk after the other: [chunks][rows][columns of the chunk], int8 or float
  size_t steps;       // float [blocks][rows], int8 compute only
  size_t minus_sums;  // int32 [blocks][rows], int8 compute only
  size_t tasks;       // max_tasks parts of task_bytes each: a panel, then sums [rows][16]; at first a row of a RowSource
  size_t panel_bytes;
  size_t task_bytes;
  size_t workspace_bytes;  // includes what it takes to align any pointer
};

ec_status MakeLutMatMulPlan(const ec_lut_factor& factor, const LutLayout& layout, int64_t rows, ec_compute compute,
                            const ec_parallel* parallel, bool needs_scratch, LutMatMulPlan* plan);

// Multiplies `rows` rows. The arguments are checked: the plan was made for this factor and as many rows, the workspace is large
// enough.
void RunLutMatMul(const LutMatMulKernels& kernels, const LutMatMulPlan& plan, const ec_lut_factor& factor, const RowSource& source,
                  int64_t rows, const ProductSink& sink, const ec_parallel* parallel, void* workspace);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_DRIVER_H_
