// Portable kernels: what the vectorised ones are tested against, and what runs where there are none.
#include <cmath>

#include "kernels/epilogue/epilogue.h"
#include "kernels/lut/lut_codes.h"
#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulRef;

namespace {

struct Ref {};

constexpr uint32_t kMagnitudeMask = 0x7fffffff;
constexpr uint32_t kInfinity = 0x7f800000;

void QuantizeBlock(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step, int32_t* minus_sum) {
  // As integers, magnitudes keep their order and NaN is above infinity: a comparison of floats would lose a NaN.
  uint32_t most = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t magnitude;
    std::memcpy(&magnitude, x + i, sizeof(magnitude));
    magnitude &= kMagnitudeMask;
    if (magnitude > most) most = magnitude;
  }
  float absmax;
  std::memcpy(&absmax, &most, sizeof(absmax));
  std::memset(q, 0, static_cast<size_t>(block_size));
  *minus_sum = 0;
  if (most >= kInfinity || absmax < 1e-30f) {
    *step = most >= kInfinity ? NAN : 0.0f;
    return;
  }
  *step = absmax / 127.0f;
  const float inverse = 127.0f / absmax;
  for (int64_t i = 0; i < count; ++i) {
    const long rounded = std::lrint(x[i] * inverse);  // half to even, in the default rounding mode
    q[i] = static_cast<int8_t>(rounded < -127 ? -127 : rounded > 127 ? 127 : rounded);
    *minus_sum -= q[i];
  }
}

template <int kPlanes>
void Decode(const LutTile& tile, int64_t spans, Panel, uint8_t* panel) {
  for (int64_t span = 0; span < spans; ++span, panel += kColumnGroups * kPlaneBytes) {
    for (int row = 0; row < kTileRows; ++row) {
      CodeWord words[kColumnGroups];
      ReadSpanCodes(tile.codes + span * kPlanes * kPlaneBytes, kPlanes, row, words);
      for (int i = 0; i < kColumnGroups; ++i) {
        for (int j = 0; j < 4; ++j) {
          panel[i * kPlaneBytes + row * 4 + j] = static_cast<uint8_t>(tile.codebook[CodeAt(words[i], j)]);
        }
      }
    }
  }
}

// Sum of x[k] * weight over one block of one row of a panel.
template <class Sum, class X>
Sum BlockSum(const uint8_t* panel, int row, const X* x, int64_t spans) {
  Sum sum = 0;
  for (int64_t group = 0; group < spans * kColumnGroups; ++group) {
    for (int j = 0; j < 4; ++j) {
      sum += static_cast<Sum>(x[group * 4 + j]) * static_cast<Sum>(static_cast<int8_t>(panel[group * kPlaneBytes + row * 4 + j]));
    }
  }
  return sum;
}

constexpr int64_t PanelBytes(int64_t spans) { return spans * kColumnGroups * kPlaneBytes; }

void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
  const int64_t block_size = count.spans_per_block * kSpanColumns;
  for (int64_t m = 0; m < rows; ++m) {
    for (int row = 0; row < kTileRows; ++row) {
      for (int64_t b = 0; b < count.blocks; ++b) {
        const int32_t sum = BlockSum<int32_t>(panel + b * PanelBytes(count.spans_per_block), row,
                                              x.q + m * count.columns + b * block_size, count.spans_per_block);
        sums[m * kTileRows + row] +=
            static_cast<float>(sum) * (static_cast<float>(scales[b * kTileRows + row]) * x.step[b * x.stride + m]);
      }
    }
  }
}

void GemmFloat(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count, float* sums) {
  const int64_t block_size = count.spans_per_block * kSpanColumns;
  for (int64_t m = 0; m < rows; ++m) {
    for (int row = 0; row < kTileRows; ++row) {
      for (int64_t b = 0; b < count.blocks; ++b) {
        const float sum = BlockSum<float>(panel + b * PanelBytes(count.spans_per_block), row,
                                          x + m * count.columns + b * block_size, count.spans_per_block);
        sums[m * kTileRows + row] += sum * static_cast<float>(scales[b * kTileRows + row]);
      }
    }
  }
}

}  // namespace

const LutMatMulKernels kLutMatMulRef = {
    QuantizeBlock,
    {},  // a few rows run as many do
    {nullptr, Decode<1>, Decode<2>, Decode<3>, Decode<4>, Decode<5>, Decode<6>, nullptr, Decode<8>},
    GemmInt8,
    GemmFloat,
    Epilogue<Ref>::Activate,
    Epilogue<Ref>::StoreTile,
};

}  // namespace edgecomp
