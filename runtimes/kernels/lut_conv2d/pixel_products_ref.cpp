// Portable kernels: what the vectorised ones are tested against, and what runs where there are none.
#include <cmath>

#include "kernels/lut_conv2d/pixel_products.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsRef;

namespace {

void ExtendRange(const float* x, int64_t count, ValueRange* range) {
  for (int64_t i = 0; i < count; ++i) {
    if (x[i] < range->least) range->least = x[i];
    if (x[i] > range->most) range->most = x[i];
    range->not_finite += x[i] * 0.0f;
  }
}

void Quantize(const float* x, int64_t channel_stride, int64_t channels, int64_t count, ImageGrid grid, uint8_t* quads) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < kQuadBytes; ++c) {
      const float scaled = c < channels ? x[c * channel_stride + i] * grid.inverse : 0.0f;
      // Half to even, in the default rounding mode. A NaN has no integer: its image's results are NaN whatever stands here.
      const long q = std::isnan(scaled) ? 0 : std::lrint(scaled) + grid.zero;
      quads[i * kQuadBytes + c] = static_cast<uint8_t>(q > 255 ? 255 : q);
    }
  }
}

void SumRows(const uint8_t* panel, int64_t groups, int32_t* sums) {
  for (int row = 0; row < kTileRows; ++row) {
    sums[row] = 0;
    for (int64_t g = 0; g < groups; ++g) {
      for (int c = 0; c < kQuadBytes; ++c) sums[row] += static_cast<int8_t>(panel[g * kPlaneBytes + row * kQuadBytes + c]);
    }
  }
}

int32_t BlockSum(const PixelTile& tile, int64_t block, int64_t row, const uint8_t* pixel) {
  int32_t sum = 0;
  for (int64_t g = tile.ends[block]; g < tile.ends[block + 1]; ++g) {
    const uint8_t* weights = tile.panel + g * kPlaneBytes + row * kQuadBytes;
    for (int c = 0; c < kQuadBytes; ++c) sum += pixel[tile.offsets[g] + c] * static_cast<int8_t>(weights[c]);
  }
  // Both may be as large as an int32 holds; their sum is not, however it is reached.
  return static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(tile.starts[block * kTileRows + row]));
}

void Multiply(const PixelTile& tile, const uint8_t* pixels, int64_t count, float* out, int64_t out_stride) {
  for (int64_t row = 0; row < tile.rows; ++row) {
    for (int64_t i = 0; i < count; ++i) {
      float total = tile.bias[row];
      for (int64_t b = 0; b < tile.blocks; ++b) {
        const int32_t sum = BlockSum(tile, b, row, pixels + i * kQuadBytes);
        total = std::fma(static_cast<float>(sum), tile.scales[b * kTileRows + row], total);
      }
      out[row * out_stride + i] = tile.relu && total < 0.0f ? 0.0f : total;
    }
  }
}

}  // namespace

const PixelProductsKernels kPixelProductsRef = {0, ExtendRange, Quantize, SumRows, Multiply};

}  // namespace edgecomp
