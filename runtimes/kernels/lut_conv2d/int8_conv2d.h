// The convolution in int8 (lut.md, "Convolution"): an image is quantised once, and each decoded tile of weights multiplied by all
// of its pixels. What decodes tiles is the format's.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_INT8_CONV2D_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_INT8_CONV2D_H_

#include <cstddef>
#include <cstdint>

#include "kernels/lut_conv2d/pixel_products.h"
#include "kernels/lut_conv2d/shifted_image.h"
#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

// A matrix in tiles of 16 rows, whose columns are (kernel row, kernel column, channel of the group) in fours.
struct TileSource {
  const void* context;
  // Writes a tile's weights, int8 [groups][16][4] for all groups of four columns, its scales [blocks][16] and [16], and returns the
  // largest magnitude that a weight may have.
  int32_t (*decode)(const void* context, int64_t tile, uint8_t* panel, float* scales, float* row_scale);
  int64_t n;
  int64_t tiles;
  int64_t blocks;
  int64_t block_groups;
  int64_t tap_groups;
  const int32_t* row_index;  // as of ec_lut_factor, or null

  int64_t RowOfLane(int64_t lane) const { return row_index != nullptr ? row_index[lane] : lane < n ? lane : -1; }
};

struct Int8Conv2dPlan {
  ShiftedImage image;
  int64_t quads;        // of a pixel's channels of one group
  int64_t plane_bytes;  // of a quad's pixels
  int64_t groups;       // of columns that meet pixels
  int64_t panel_bytes;  // of a tile, all groups of columns
  int64_t pixel_parts;  // that units cut an image's pixels into
  int64_t max_tasks;
  size_t quad_planes, offsets, ends, sources, ranges, tasks;
  size_t task_bytes;
  size_t workspace_bytes;
};

// The geometry may become another one of the same pixels.
ec_status PlanInt8Conv2d(const TileSource& source, Conv2dGeometry* geometry, const ec_parallel* parallel, Int8Conv2dPlan* plan);

// The arguments are checked: the plan was made for this source, the workspace is large enough, and there are outputs.
void RunInt8Conv2d(const TileSource& source, const Conv2dGeometry& geometry, const Int8Conv2dPlan& plan,
                   const PixelProductsKernels& kernels, const LutMatMulKernels& activations, const float* x,
                   const ec_epilogue& epilogue, float* y, const ec_parallel* parallel, void* workspace);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_INT8_CONV2D_H_
