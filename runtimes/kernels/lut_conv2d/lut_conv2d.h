// The paths of lut_conv2d: int8 (int8_conv2d.h); float, of which one group runs as a product (lut_conv2d.cpp) and several run
// directly (grouped_conv2d.cpp).
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_

#include <cstddef>

#include "kernels/lut/lut_layout.h"
#include "kernels/lut_conv2d/conv2d_geometry.h"
#include "kernels/lut_conv2d/int8_conv2d.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp {

ec_status GroupedConv2dWorkspace(const LutLayout& layout, const ec_parallel* parallel, size_t* bytes);

// Float compute. The workspace holds GroupedConv2dWorkspace bytes.
void RunGroupedConv2d(const ec_lut_factor& factor, const LutLayout& layout, const Conv2dGeometry& geometry, const float* x,
                      const ec_epilogue& epilogue, const LutMatMulKernels& kernels, float* y, const ec_parallel* parallel,
                      void* workspace);

struct Conv2dPlan {
  Conv2dGeometry geometry;  // in int8 it may be another one than the caller's, of the same pixels
  LutLayout layout;
  ec_compute compute;
  union {
    LutMatMulPlan product;  // float, one group: of the pixels of one image
    Int8Conv2dPlan int8;
  };
  size_t workspace_bytes;
};

// What decodes the tiles of a factor for the int8 convolution, by the kernels of any instruction set; they may be null for a plan.
struct LutTiles {
  const ec_lut_factor* factor;
  const LutLayout* layout;
  const LutMatMulKernels* kernels;
};
TileSource TilesOf(const LutTiles& tiles, const Conv2dGeometry& geometry);

// The C interface and the operator check and plan alike.
ec_status PlanConv2d(const ec_lut_factor* factor, const ec_conv2d* conv, const ec_epilogue* epilogue, ec_compute compute,
                     const ec_parallel* parallel, Conv2dPlan* plan);
ec_status RunConv2d(const ec_lut_factor& factor, const Conv2dPlan& plan, const float* x, const ec_epilogue* epilogue, float* y,
                    const ec_parallel* parallel, void* workspace, size_t workspace_bytes);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_
