// Armv8.6 with the int8 matrix product (or Armv8.2 with FEAT_I8MM): Cortex-A510, A710, X2 and later, Neoverse V1 and N2. A few rows
// of x run as with the dot product alone; many rows multiply 2 x 8 by 8 x 2 values an instruction.
#include "kernels/lut_matmul/lut_matmul_neon_dotprod.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulNeonI8mm;

namespace {

struct I8mm;
using Base = LutMatMulNeon<I8mm, SdotProduct<I8mm>>;

// The panel of GemmInt8 is [column groups / 2][8 pairs of rows][2 rows][8 columns].
constexpr int kPairColumns = 8;
constexpr int kPairsOfTile = kTileRows / 2;
constexpr int kPairGroupBytes = kTileRows * kPairColumns;

template <int kPlanes>
void Decode(const LutTile& tile, int64_t spans, Panel kind, uint8_t* panel) {
  if (kind == Panel::kPlain) return Base::Decode<kPlanes>(tile, spans, kind, panel);
  const NeonSpanDecoder<I8mm, kPlanes> decoder(tile.tables);
  const uint8_t* codes = tile.codes;
  for (int64_t s = 0; s < spans; ++s, panel += kColumnGroups * kPlaneBytes) {
    int32x4_t even[kParts];
    decoder.template Decode<kParts>(codes, [&](auto group, auto part, int8x16_t weights) EC_LAMBDA_INLINE {
      const int32x4_t rows = vreinterpretq_s32_s8(weights);  // 4 columns of a row a lane
      if constexpr (group % 2 == 0) {
        even[part] = rows;
      } else {
        auto* to = reinterpret_cast<int32_t*>(panel + group / 2 * kPairGroupBytes + part * 2 * 16);
        vst1q_s32(to, vzip1q_s32(even[part], rows));
        vst1q_s32(to + 4, vzip2q_s32(even[part], rows));
      }
    });
  }
}

// The sums of up to 2 kPairs rows of x by half a tile, two parts: as many as the registers hold.
template <int kPairs>
void MultiplyPairs(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, const BlockCount& count,
                   float* sums) {
  constexpr int kUsedParts = 2;
  constexpr int kWeightPairs = 2 * kUsedParts;
  const int8_t* row_of[2 * kPairs];  // an odd last row stands in for the one that is not there
  for (int64_t m = 0; m < 2 * kPairs; ++m) row_of[m] = x.q + (m < rows ? m : rows - 1) * count.columns;
  for (int first_part = 0; first_part < kParts; first_part += kUsedParts) {
    const NeonScales<I8mm, kUsedParts> block_scales(first_part);
    const auto* weights = reinterpret_cast<const int8_t*>(panel) + first_part * 2 * 16;
    int64_t column = 0;
    for (int64_t b = 0; b < count.blocks; ++b) {
      int32x4_t sum[kPairs][kWeightPairs] = {};  // rows m and m + 1 of x times rows r and r + 1 of the tile
      const int64_t end = column + count.spans_per_block * kSpanColumns;
      do {
        int8x16_t w[kWeightPairs];
        for (int r = 0; r < kWeightPairs; ++r) w[r] = vld1q_s8(weights + r * 16);
        for (int p = 0; p < kPairs; ++p) {
          const int8x16_t pair = vcombine_s8(vld1_s8(row_of[2 * p] + column), vld1_s8(row_of[2 * p + 1] + column));
          for (int r = 0; r < kWeightPairs; ++r) sum[p][r] = vmmlaq_s32(sum[p][r], pair, w[r]);
        }
        weights += kPairGroupBytes;
        column += kPairColumns;
      } while (column != end);
      float32x4_t scale[kUsedParts];
      block_scales.Convert(vld1q_s8(scales + b * kTileRows), scale);
      const float* step = x.step + b * x.stride;
      for (int p = 0; p < kPairs; ++p) {
        for (int part = 0; part < kUsedParts; ++part) {
          const int64x2_t low = vreinterpretq_s64_s32(sum[p][2 * part]), high = vreinterpretq_s64_s32(sum[p][2 * part + 1]);
          const int32x4_t of_row[2] = {vreinterpretq_s32_s64(vzip1q_s64(low, high)), vreinterpretq_s32_s64(vzip2q_s64(low, high))};
          for (int odd = 0; odd < 2; ++odd) {
            const int m = 2 * p + odd;
            if (m >= rows) continue;
            float* total = sums + m * kTileRows + (first_part + part) * kPartRows;
            vst1q_f32(total, vfmaq_f32(vld1q_f32(total), vcvtq_f32_s32(of_row[odd]), vmulq_n_f32(scale[part], step[m])));
          }
        }
      }
    }
  }
}

void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t m = 0; m < rows; m += kRowsAtOnce) {
    const QuantizedRows from_m = {x.q + m * count.columns, x.step + m, x.minus_sum + m, x.stride};
    const int64_t left = rows - m;
    const auto multiply = left > 6   ? MultiplyPairs<4>
                          : left > 4 ? MultiplyPairs<3>
                          : left > 2 ? MultiplyPairs<2>
                                     : MultiplyPairs<1>;
    multiply(panel, scales, from_m, left < kRowsAtOnce ? left : kRowsAtOnce, count, sums + m * kTileRows);
  }
}

constexpr LutMatMulKernels Kernels() {
  LutMatMulKernels kernels = Base::Kernels();
  const auto decode = {Decode<1>, Decode<2>, Decode<3>, Decode<4>, Decode<5>, Decode<6>};
  int planes = 0;
  for (const auto& of_planes : decode) kernels.decode[++planes] = of_planes;
  kernels.decode[8] = Decode<8>;
  kernels.gemm_int8 = GemmInt8;
  return kernels;
}

}  // namespace

const LutMatMulKernels kLutMatMulNeonI8mm = Kernels();

}  // namespace edgecomp
