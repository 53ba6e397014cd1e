// The two paths of lut_conv2d: one group runs as a product (lut_conv2d.cpp), several run directly (grouped_conv2d.cpp).
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_

#include <cstddef>

#include "kernels/lut/lut_layout.h"
#include "kernels/lut_conv2d/conv2d_geometry.h"

namespace edgecomp {

ec_status GroupedConv2dWorkspace(const LutLayout& layout, const ec_parallel* parallel, size_t* bytes);

// Float compute. The workspace holds GroupedConv2dWorkspace bytes.
void RunGroupedConv2d(const ec_lut_factor& factor, const LutLayout& layout, const Conv2dGeometry& geometry, const float* x,
                      const float* bias, float* y, const ec_parallel* parallel, void* workspace);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_LUT_CONV2D_H_
