// Sizes of a two-dimensional convolution by a packed matrix.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_CONV2D_GEOMETRY_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_CONV2D_GEOMETRY_H_

#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

struct Conv2dGeometry {
  ec_conv2d conv;
  int64_t out_height;
  int64_t out_width;
  int64_t group_channels;   // input channels of a group
  int64_t padded_channels;  // the same, as many as a tap has columns
  int64_t group_outputs;    // output channels of a group

  int64_t out_pixels() const { return out_height * out_width; }
  bool empty() const { return conv.batch == 0 || out_pixels() == 0; }
  int64_t in_pixels() const { return conv.height * conv.width; }
};

// Checks the geometry, and that an [n, k] matrix, whose taps pad the channels to a multiple, is the kernel of such a convolution.
ec_status MakeConv2dGeometry(int64_t n, int64_t k, int64_t channel_multiple, const ec_conv2d* conv, Conv2dGeometry* geometry);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_CONV2D_GEOMETRY_H_
