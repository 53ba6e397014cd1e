#include "kernels/lut_conv2d/conv2d_geometry.h"

#include <initializer_list>

#include "core/checked_math.h"

namespace edgecomp {
namespace {

// Within these bounds no sum or product of two sizes overflows an int64.
constexpr bool InRange(int64_t value, int64_t least) { return value >= least && value <= INT32_MAX; }

// Length of one axis of the output, or 0 where the kernel does not fit: what lies outside an image of no pixels is still padding.
int64_t OutputLength(int64_t length, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad_before, int64_t pad_after) {
  const int64_t room = length + pad_before + pad_after - (dilation * (kernel - 1) + 1);
  return room < 0 ? 0 : room / stride + 1;
}

bool SizesInRange(const ec_conv2d& c) {
  for (const int64_t size : {c.in_channels, c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.dilation_h, c.dilation_w, c.group}) {
    if (!InRange(size, 1)) return false;
  }
  for (const int64_t size : {c.batch, c.height, c.width, c.pad_top, c.pad_left, c.pad_bottom, c.pad_right}) {
    if (!InRange(size, 0)) return false;
  }
  return true;
}

}  // namespace

ec_status MakeConv2dGeometry(int64_t n, int64_t k, int64_t channel_multiple, const ec_conv2d* conv, Conv2dGeometry* geometry) {
  Conv2dGeometry& g = *geometry;
  const ec_status status = ec_conv2d_output_size(conv, &g.out_height, &g.out_width);
  if (status != EC_OK) return status;
  g.conv = *conv;
  if (conv->in_channels % conv->group != 0 || n % conv->group != 0) return EC_ERR_SHAPE;
  g.group_channels = conv->in_channels / conv->group;
  g.group_outputs = n / conv->group;
  g.padded_channels = CeilDiv(g.group_channels, channel_multiple) * channel_multiple;

  const CheckedSize columns = CheckedSize(conv->kernel_h) * conv->kernel_w * g.padded_channels;
  const int64_t images = conv->batch > 0 ? conv->batch : 1;  // without images the sizes of one must fit all the same
  const CheckedSize in = CheckedSize(images) * conv->in_channels * conv->height * conv->width * int64_t{sizeof(float)};
  const CheckedSize out = CheckedSize(images) * n * g.out_height * g.out_width * int64_t{sizeof(float)};
  if (!columns.fits() || !in.fits() || !out.fits()) return EC_ERR_OVERFLOW;
  return static_cast<int64_t>(columns.value()) == k ? EC_OK : EC_ERR_SHAPE;
}

}  // namespace edgecomp

ec_status ec_conv2d_output_size(const ec_conv2d* conv, int64_t* out_height, int64_t* out_width) {
  if (conv == nullptr || out_height == nullptr || out_width == nullptr) return EC_ERR_NULL_POINTER;
  const ec_conv2d& c = *conv;
  if (c.size != sizeof(c)) return EC_ERR_STRUCT_SIZE;
  if (!edgecomp::SizesInRange(c)) return EC_ERR_SHAPE;
  *out_height = edgecomp::OutputLength(c.height, c.kernel_h, c.stride_h, c.dilation_h, c.pad_top, c.pad_bottom);
  *out_width = edgecomp::OutputLength(c.width, c.kernel_w, c.stride_w, c.dilation_w, c.pad_left, c.pad_right);
  // An image that has pixels must have room for the kernel; without pixels there are no outputs, or those of the padding.
  const bool fits = (*out_height >= 1 || c.height == 0) && (*out_width >= 1 || c.width == 0);
  return fits ? EC_OK : EC_ERR_SHAPE;
}
