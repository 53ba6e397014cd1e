#include "kernels/lut_conv2d/shifted_image.h"

namespace edgecomp {
namespace {

int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

ImageAxis MakeAxis(int64_t length, int64_t outputs, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  ImageAxis axis = {stride, dilation, length, outputs, 0, 0, pad};
  if (length == 0 || outputs == 0) return axis;
  // Of tap t the outputs see the image's places t * dilation - pad to t * dilation - pad + (outputs - 1) * stride.
  const int64_t before = pad - (outputs - 1) * stride;
  const int64_t first = before > 0 ? CeilDiv(before, dilation) : 0;
  const int64_t last = Least((length - 1 + pad) / dilation, kernel - 1);
  if (first > last) return axis;
  axis.first_tap = first;
  axis.taps = last - first + 1;
  axis.pad = pad - first * dilation;
  return axis;
}

}  // namespace

Range ImageAxis::Inside(int64_t phase) const {
  const int64_t first = phase - pad;
  const int64_t begin = first >= 0 ? 0 : CeilDiv(-first, stride);
  const int64_t end = first >= length ? 0 : (length - 1 - first) / stride + 1;
  const Range inside = {Least(begin, places()), Least(end, places())};
  return inside.first < inside.last ? inside : Range{places(), places()};
}

int64_t ShiftedImage::TapOffset(int64_t tap_y, int64_t tap_x) const {
  const int64_t y = tap_y * rows.dilation, x = tap_x * columns.dilation;
  const int64_t phase = y % rows.stride * columns.phases() + x % columns.stride;
  return phase * static_cast<int64_t>(phase_pixels().value()) + y / rows.stride * pitch + x / columns.stride;
}

ShiftedImage MakeShiftedImage(const Conv2dGeometry& geometry) {
  const ec_conv2d& c = geometry.conv;
  ShiftedImage image;
  image.rows = MakeAxis(c.height, geometry.out_height, c.kernel_h, c.stride_h, c.dilation_h, c.pad_top);
  image.columns = MakeAxis(c.width, geometry.out_width, c.kernel_w, c.stride_w, c.dilation_w, c.pad_left);
  image.overlap = image.columns.extra();
  for (int64_t phase = 0; phase < image.columns.phases(); ++phase) {
    const Range inside = image.columns.Inside(phase);
    image.overlap = Least(image.overlap, Least(inside.first, image.columns.places() - inside.last));
  }
  image.pitch = image.columns.places() - image.overlap;
  return image;
}

}  // namespace edgecomp
