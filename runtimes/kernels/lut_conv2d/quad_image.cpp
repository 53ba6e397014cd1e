#include "kernels/lut_conv2d/quad_image.h"

#include <cmath>
#include <cstring>

namespace edgecomp {
namespace {

// Every stride-th quad. A stride that the compiler knows lets it use vectors.
void CopyQuads(const uint8_t* from, int64_t stride, int64_t count, uint8_t* to) {
  const auto copy = [&](int64_t known) {
    for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * kQuadBytes, from + i * known * kQuadBytes, kQuadBytes);
  };
  stride == 2 ? copy(2) : copy(stride);
}

}  // namespace

StepGrid GridOf(const ValueRange& range) {
  const float width = range.most - range.least;
  if (!std::isfinite(width) || std::isnan(range.not_finite)) return {{0.0f, 0}, NAN};
  if (width < 1e-30f) return {{0.0f, 0}, 0.0f};
  const float inverse = 255.0f / width;
  return {{inverse, static_cast<int32_t>(std::lrint(-range.least * inverse))}, width / 255.0f};
}

void QuadImage::FillZero(int64_t pixels, uint8_t* to) const {
  if (pixels > 0) std::memset(to, (grid_.zero - kernels_.byte_offset) & 0xff, static_cast<size_t>(pixels * kQuadBytes));
}

void QuadImage::FillRows(const float* x, Range rows, uint8_t* scratch) const {
  const int64_t plane_bytes = phase_pixels_ * image_.rows.phases() * image_.columns.phases() * kQuadBytes;
  for (int64_t row = rows.first; row < rows.last;) {
    const int64_t quad = row / rows_of_quad();
    const int64_t group = quad / quads_of_group(), first = quad % quads_of_group() * kQuadBytes;
    const int64_t left = geometry_.group_channels - first, channels = left < kQuadBytes ? left : kQuadBytes;
    const float* from = x + (group * geometry_.group_channels + first) * geometry_.in_pixels();
    const int64_t begin = row % rows_of_quad(), end = begin + rows.last - row;
    int64_t phase_y = begin / image_.plane_rows(), place_y = begin % image_.plane_rows();
    for (int64_t i = begin; i < end && i < rows_of_quad(); ++i, ++row) {
      FillRow(from, channels, phase_y, place_y, planes_ + quad * plane_bytes, scratch);
      if (++place_y == image_.plane_rows()) ++phase_y, place_y = 0;
    }
  }
}

// A row of each phase of columns.
void QuadImage::FillRow(const float* channels, int64_t count, int64_t phase_y, int64_t place_y, uint8_t* plane,
                        uint8_t* scratch) const {
  const ImageAxis& columns = image_.columns;
  const int64_t y = place_y * image_.rows.stride + phase_y - image_.rows.pad;
  const bool inside_y = y >= 0 && y < image_.rows.length && columns.taps > 0 && image_.rows.taps > 0;
  const float* x = channels + y * columns.length;
  const bool direct = columns.stride == 1;
  if (inside_y && !direct) kernels_.quantize(x, geometry_.in_pixels(), count, columns.length, grid_, scratch);
  const bool last = place_y == image_.plane_rows() - 1;
  const int64_t end = image_.pitch + (last ? image_.overlap : 0);
  for (int64_t phase_x = 0; phase_x < columns.phases(); ++phase_x) {
    const int64_t phase = phase_y * columns.phases() + phase_x;
    uint8_t* to = plane + (phase * phase_pixels_ + place_y * image_.pitch) * kQuadBytes;
    const Range inside = inside_y ? columns.Inside(phase_x) : Range{end, end};
    const int64_t pixels = inside.last - inside.first;
    if (!inside_y || pixels == 0) {
      FillZero(end, to);
      continue;
    }
    FillZero(inside.first, to);
    FillZero(end - inside.last, to + inside.last * kQuadBytes);
    const int64_t first = inside.first * columns.stride + phase_x - columns.pad;
    if (direct) {
      kernels_.quantize(x + first, geometry_.in_pixels(), count, pixels, grid_, to + inside.first * kQuadBytes);
    } else {
      CopyQuads(scratch + first * kQuadBytes, columns.stride, pixels, to + inside.first * kQuadBytes);
    }
  }
}

}  // namespace edgecomp
