// Quantises an image of float32 into the quads that pixel_products.h multiplies, laid out as a shifted image.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_QUAD_IMAGE_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_QUAD_IMAGE_H_

#include <cstdint>

#include "kernels/lut_conv2d/pixel_products.h"
#include "kernels/lut_conv2d/shifted_image.h"

namespace edgecomp {

// The grid of an image's values, 0 exactly on it, and its step: NaN where a value is no finite number, 0 where all are 0.
struct StepGrid {
  ImageGrid grid;
  float step;
};
StepGrid GridOf(const ValueRange& range);

class QuadImage {
 public:
  // Quads are of the channels of one group; `planes` holds them one after the other, groups behind each other.
  QuadImage(const PixelProductsKernels& kernels, const ShiftedImage& image, const Conv2dGeometry& geometry, ImageGrid grid,
            uint8_t* planes)
      : kernels_(kernels),
        image_(image),
        geometry_(geometry),
        grid_(grid),
        planes_(planes),
        phase_pixels_(static_cast<int64_t>(image.phase_pixels().value())) {}

  // All rows of all quads, padding included.
  int64_t rows() const { return quads() * rows_of_quad(); }
  // Writes rows of `x`, the image's first channel; `scratch` holds a row of the image in quads.
  void FillRows(const float* x, Range rows, uint8_t* scratch) const;

 private:
  int64_t quads_of_group() const { return CeilDiv(geometry_.group_channels, kQuadBytes); }
  int64_t quads() const { return geometry_.conv.group * quads_of_group(); }
  int64_t rows_of_quad() const { return image_.rows.phases() * image_.plane_rows(); }
  void FillRow(const float* channels, int64_t count, int64_t phase_y, int64_t place_y, uint8_t* plane, uint8_t* scratch) const;
  void FillZero(int64_t pixels, uint8_t* to) const;

  const PixelProductsKernels& kernels_;
  const ShiftedImage& image_;
  const Conv2dGeometry& geometry_;
  ImageGrid grid_;
  uint8_t* planes_;
  const int64_t phase_pixels_;
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_QUAD_IMAGE_H_
