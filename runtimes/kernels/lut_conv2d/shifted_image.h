// How an image is laid out so that what a tap needs of it lies at a fixed distance from what the first tap needs.
//
// Rows and columns are sorted by what remains when they are divided by the strides (phases), with the padding around them. With
// rows of the same pitch as the outputs, output (row, column) at the index i = row * pitch + column needs of a tap the pixel at
// TapOffset + i, whatever strides, dilations and paddings are; columns between out_width and the pitch are computed for nothing.
// The padding behind a row is the one before the next where both sides have some.
//
// Taps that meet the padding alone, as in dilations above the image, are left out: they would make it large for nothing.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_SHIFTED_IMAGE_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_SHIFTED_IMAGE_H_

#include <cstdint>

#include "core/checked_math.h"
#include "core/parallel.h"
#include "kernels/lut_conv2d/conv2d_geometry.h"

namespace edgecomp {

struct ImageAxis {
  int64_t stride, dilation, length, outputs;
  int64_t first_tap, taps;  // those that any output sees pixels by
  int64_t pad;              // before the image as the first of these taps sees it; may be negative

  int64_t reach() const { return taps == 0 ? 0 : (taps - 1) * dilation; }
  int64_t phases() const { return stride < reach() + 1 ? stride : reach() + 1; }
  int64_t extra() const { return reach() / stride; }  // places that a phase has beyond those of the outputs
  int64_t places() const { return outputs + extra(); }
  // Places [first, last) of a phase that lie inside the image: place i is the image's i * stride + phase - pad.
  Range Inside(int64_t phase) const;
};

struct ShiftedImage {
  ImageAxis rows, columns;
  int64_t pitch;    // pixels from a row of a phase to the next one
  int64_t overlap;  // pixels of padding that rows share

  int64_t plane_rows() const { return rows.places(); }
  int64_t length() const { return rows.outputs == 0 ? 0 : (rows.outputs - 1) * pitch + columns.outputs; }
  CheckedSize phase_pixels() const { return CheckedSize(plane_rows()) * pitch + overlap; }
  CheckedSize plane_pixels() const { return phase_pixels() * rows.phases() * columns.phases(); }
  // In pixels, of the tap by its place among the taps of both axes; the sizes must fit.
  int64_t TapOffset(int64_t tap_y, int64_t tap_x) const;
};

ShiftedImage MakeShiftedImage(const Conv2dGeometry& geometry);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_SHIFTED_IMAGE_H_
