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

// What becomes of the products and where they go, as ec_epilogue says: element (m, n) of y lies at
// y[m * row_stride + n * column_stride], and of the addend at the same column stride. Gated, column_stride is 1.
struct ProductSink {
  float* y;
  int64_t row_stride;
  int64_t column_stride;
  const float* bias;
  const float* addend;
  int64_t addend_row_stride;
  ec_activation activation;
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
  bool gated;
  bool paired;        // gated, and tile t of the first half belongs to tile t + T/2: their products meet in a task's memory
  size_t values;      // prepared x of a chunk after the other: [chunks][rows][columns of the chunk], int8 or float
  size_t steps;       // float [blocks][rows], int8 compute only
  size_t minus_sums;  // int32 [blocks][rows], int8 compute only
  size_t tasks;     // max_tasks parts of task_bytes each: a panel, sums [rows][16], twice where paired; at first a RowSource's row
  size_t products;  // float [rows][N] where gated and not paired
  size_t panel_bytes;
  size_t task_bytes;
  size_t workspace_bytes;  // includes what it takes to align any pointer
};

ec_status MakeLutMatMulPlan(const ec_lut_factor& factor, const LutLayout& layout, int64_t rows, ec_compute compute,
                            const ec_parallel* parallel, bool needs_scratch, bool gated, LutMatMulPlan* plan);

// What of an epilogue can be checked before a call; null is fine.
ec_status CheckEpilogue(const ec_epilogue* epilogue, int64_t n);

// The product of a matrix in memory, for which the C interface and the operator check and plan alike.
ec_status PlanMatrixProduct(const ec_lut_factor* factor, int64_t m, const ec_epilogue* epilogue, ec_compute compute,
                            const ec_parallel* parallel, LutMatMulPlan* plan);
ec_status RunMatrixProduct(const ec_lut_factor& factor, const LutMatMulPlan& plan, const float* x, int64_t m,
                           const ec_epilogue* epilogue, float* y, const ec_parallel* parallel, void* workspace,
                           size_t workspace_bytes);

// Multiplies `rows` rows. The arguments are checked: the plan was made for this factor and as many rows, the workspace is large
// enough.
void RunLutMatMul(const LutMatMulKernels& kernels, const LutMatMulPlan& plan, const ec_lut_factor& factor, const RowSource& source,
                  int64_t rows, const ProductSink& sink, const ec_parallel* parallel, void* workspace);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_DRIVER_H_
