// What the ARM variants of lut_matmul share: the quantisation of x, block scales, panels and the float product. See
// lut_decode_neon.h for `Tag`.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_H_

#include "kernels/lut_matmul/lut_decode_neon.h"

namespace edgecomp {

// Converts 4 bytes of a vector, first + stride * lane, to float32. An index out of range looks up 0: each byte becomes the top of a
// 32-bit lane, and converting that as a number with 24 fractional bits gives back its value, sign included.
class NeonBytesToFloats {
 public:
  NeonBytesToFloats() = default;
  EC_INLINE NeonBytesToFloats(int first, int stride) {
    constexpr uint8_t kZero = 255;
    uint8_t index[16];
    for (int i = 0; i < 16; ++i) index[i] = i % 4 == 3 ? static_cast<uint8_t>(first + i / 4 * stride) : kZero;
    index_ = vld1q_u8(index);
    HideOrigin(index_);
  }
  EC_INLINE float32x4_t operator()(int8x16_t bytes) const {
    return vcvtq_n_f32_s32(vreinterpretq_s32_s8(vqtbl1q_s8(bytes, index_)), 24);
  }

 private:
  uint8x16_t index_;
};

// The 16 scales of a block, for kUsedParts parts from first_part on.
template <class Tag, int kUsedParts>
class NeonScales {
 public:
  EC_INLINE explicit NeonScales(int first_part) {
    Unroll<Tag, kUsedParts>([&](auto part) EC_LAMBDA_INLINE { convert_[part] = {(first_part + part) * kPartRows, 1}; });
  }
  EC_INLINE void Load(const int8_t* scales, float32x4_t (&out)[kUsedParts]) const {
    const int8x16_t bytes = vld1q_s8(scales);
    for (int part = 0; part < kUsedParts; ++part) out[part] = convert_[part](bytes);
  }

 private:
  NeonBytesToFloats convert_[kUsedParts];
};

// The integer product of Sums::kCount rows of x and a tile, Sums::kUsedParts parts at a time: what the registers hold. Sums adds up
// a block:
//
//   Clear()                            start a block of several spans; where kOneSpan is set, spans are whole blocks and start by
//                                      themselves
//   StartSpan(q, columns)              row m of the span's x is at q + m * columns
//   Add(group, part, weights)          the columns 4 group to 4 group + 3, in the order of NeonSpanDecoder::Decode
//   Sum(m, part)                       the block's sums of 4 rows of the tile
template <class Tag, int kPlanes, class Sums>
void NeonMultiply(const LutTile& tile, const QuantizedRows& x, BlockCount count, float* totals) {
  constexpr int kCount = Sums::kCount, kUsedParts = Sums::kUsedParts;
  const NeonSpanDecoder<Tag, kPlanes> decoder(tile.tables);
  const int64_t stride = x.stride;
  for (int first_part = 0; first_part < kParts; first_part += kUsedParts) {
    const NeonScales<Tag, kUsedParts> block_scales(first_part);
    const uint8_t* codes = tile.codes + first_part * kPartBytes;
    const int8_t* scales = tile.scales;
    const int8_t* q = x.q;
    const float* step = x.step;
    float* out = totals + first_part * kPartRows;
    float32x4_t total[kCount][kUsedParts];
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) total[m][part] = vld1q_f32(out + m * kTileRows + part * kPartRows);
    }
    int64_t blocks = count.blocks;
    do {
      Sums sums;
      if constexpr (!Sums::kOneSpan) sums.Clear();
      int64_t spans = Sums::kOneSpan ? 1 : count.spans_per_block;
      do {
        sums.StartSpan(q, count.columns);
        q += kSpanColumns;
        HideOrigin(q);
        decoder.template Decode<kUsedParts>(
            codes, [&](auto group, auto part, int8x16_t weights) EC_LAMBDA_INLINE { sums.Add(group, part, weights); });
      } while (--spans != 0);
      float32x4_t scale[kUsedParts];
      block_scales.Load(scales, scale);
      scales += kTileRows;
      HideOrigin(scales);
      // total += sum * (scale * step), in the order of lut.md.
      for (int m = 0; m < kCount; ++m) {
        for (int part = 0; part < kUsedParts; ++part) {
          total[m][part] = vfmaq_f32(total[m][part], vcvtq_f32_s32(sums.Sum(m, part)), vmulq_n_f32(scale[part], step[m]));
        }
      }
      step += stride;
    } while (--blocks != 0);
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) vst1q_f32(out + m * kTileRows + part * kPartRows, total[m][part]);
    }
  }
}

// All kernels of a variant: Product has Direct<kPlanes>, the product of up to kMostDirectRows rows of x.
template <class Tag, class Product>
class LutMatMulNeon {
 public:
  static constexpr LutMatMulKernels Kernels() {
    return {
        QuantizeBlock,
        {nullptr, Product::template Direct<1>, Product::template Direct<2>, Product::template Direct<3>,
         Product::template Direct<4>, Product::template Direct<5>, Product::template Direct<6>, nullptr,
         Product::template Direct<8>},
        {nullptr, Decode<1>, Decode<2>, Decode<3>, Decode<4>, Decode<5>, Decode<6>, nullptr, Decode<8>},
        /*panel_flip=*/0,
        GemmInt8,
        GemmFloat,
    };
  }

 private:
  static void QuantizeBlock(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step, int32_t* sum) {
    // The last values of an odd count, filled up with zeros, so that the loops see whole spans only.
    float tail[kSpanColumns] = {};
    const int64_t whole = count / kSpanColumns * kSpanColumns;
    const bool has_tail = whole < count;
    if (has_tail) __builtin_memcpy(tail, x + whole, static_cast<size_t>(count - whole) * sizeof(float));

    // As integers, magnitudes keep their order and NaN is above infinity: a comparison of floats would lose a NaN.
    constexpr uint32_t kInfinity = 0x7f800000;
    uint32x4_t magnitudes = vdupq_n_u32(0);
    for (int64_t i = 0; i < whole; i += kSpanColumns) magnitudes = MaxMagnitudes(magnitudes, x + i);
    if (has_tail) magnitudes = MaxMagnitudes(magnitudes, tail);
    const uint32_t most = vmaxvq_u32(magnitudes);

    float absmax;
    __builtin_memcpy(&absmax, &most, sizeof(absmax));
    int64_t written = 0;
    *sum = 0;
    if (most >= kInfinity || absmax < 1e-30f) {
      *step = most >= kInfinity ? __builtin_nanf("") : 0.0f;
    } else {
      *step = absmax / 127.0f;
      const float inverse = 127.0f / absmax;
      // No clamp: |x| * inverse is below 127.5 for |x| <= absmax, whatever the two roundings do.
      int32x4_t sums = vdupq_n_s32(0);
      for (; written < whole; written += kSpanColumns) sums = QuantizeSpan(x + written, inverse, q + written, sums);
      if (has_tail) {
        sums = QuantizeSpan(tail, inverse, q + whole, sums);
        written += kSpanColumns;
      }
      *sum = vaddvq_s32(sums);
    }
    if (written < block_size) __builtin_memset(q + written, 0, static_cast<size_t>(block_size - written));
  }

  template <int kPlanes>
  static void Decode(const LutTile& tile, int64_t spans, uint8_t, uint8_t* panel) {
    const NeonSpanDecoder<Tag, kPlanes> decoder(tile.tables);
    const uint8_t* codes = tile.codes;
    for (int64_t s = 0; s < spans; ++s, panel += kColumnGroups * kPlaneBytes) {
      decoder.template Decode<kParts>(codes, [&](auto group, auto part, int8x16_t weights) EC_LAMBDA_INLINE {
        vst1q_s8(reinterpret_cast<int8_t*>(panel) + group * kPlaneBytes + part * kPartBytes, weights);
      });
    }
  }

  // A panel has the layout of 8 planes.
  static void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count,
                       float* sums) {
    const LutTile tile = {panel, scales, nullptr, nullptr};
    for (int64_t m = 0; m < rows; m += kMostDirectRows) {
      const QuantizedRows from_m = {x.q + m * count.columns, x.step + m, x.sum + m, x.stride};
      const int64_t left = rows - m < kMostDirectRows ? rows - m : kMostDirectRows;
      Product::template Direct<8>(tile, from_m, left, count, sums + m * kTileRows);
    }
  }

  static void GemmFloat(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count, float* sums) {
    for (int64_t m = 0; m < rows; m += kFloatRows) {
      const int64_t left = rows - m < kFloatRows ? rows - m : kFloatRows;
      GemmFloatLast<kFloatRows>(panel, scales, x + m * count.columns, left, count, sums + m * kTileRows);
    }
  }

  static constexpr int kFloatRows = 4;

  static EC_INLINE uint32x4_t MaxMagnitudes(uint32x4_t most, const float* x) {
    for (int i = 0; i < kSpanColumns; i += 4) most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(vld1q_f32(x + i))));
    return most;
  }

  static EC_INLINE int16x8_t RoundToInt16(const float* x, float inverse) {
    const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    const int32x4_t high = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    return vuzp1q_s16(vreinterpretq_s16_s32(low), vreinterpretq_s16_s32(high));
  }

  static EC_INLINE int32x4_t QuantizeSpan(const float* x, float inverse, int8_t* q, int32x4_t sums) {
    for (int i = 0; i < kSpanColumns; i += 16) {
      const int16x8_t low = RoundToInt16(x + i, inverse), high = RoundToInt16(x + i + 8, inverse);
      vst1q_s8(q + i, vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high)));
      sums = vpadalq_s16(sums, vaddq_s16(low, high));
    }
    return sums;
  }

  // kCount rows of x times kUsedParts parts: four sums at least, so that they do not wait for each other, and no more than
  // registers hold.
  template <int kCount>
  static void GemmFloatRows(const uint8_t* panel, const int8_t* scales, const float* x, BlockCount count, float* sums) {
    constexpr int kUsedParts = kCount == 1 ? 4 : 2;
    const NeonBytesToFloats column[4] = {{0, 4}, {1, 4}, {2, 4}, {3, 4}};
    for (int first_part = 0; first_part < kParts; first_part += kUsedParts) {
      const NeonScales<Tag, kUsedParts> block_scales(first_part);
      const uint8_t* weights = panel + first_part * kPartBytes;
      float* out = sums + first_part * kPartRows;
      const float* group_x = x;
      for (int64_t b = 0; b < count.blocks; ++b) {
        float32x4_t sum[kUsedParts][kCount] = {};
        for (int64_t i = 0; i < count.spans_per_block * kColumnGroups; ++i, weights += kPlaneBytes, group_x += 4) {
          float32x4_t x4[kCount];
          for (int m = 0; m < kCount; ++m) x4[m] = vld1q_f32(group_x + m * count.columns);
          for (int part = 0; part < kUsedParts; ++part) {
            const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(weights + part * kPartBytes));
            Unroll<Tag, 4>([&](auto j) EC_LAMBDA_INLINE {
              const float32x4_t w = column[j](bytes);
              for (int m = 0; m < kCount; ++m) sum[part][m] = vfmaq_laneq_f32(sum[part][m], w, x4[m], j);
            });
          }
        }
        float32x4_t scale[kUsedParts];
        block_scales.Load(scales + b * kTileRows, scale);
        for (int part = 0; part < kUsedParts; ++part) {
          for (int m = 0; m < kCount; ++m) {
            float* total = out + m * kTileRows + part * kPartRows;
            vst1q_f32(total, vfmaq_f32(vld1q_f32(total), sum[part][m], scale[part]));
          }
        }
      }
    }
  }

  template <int kCount>
  static void GemmFloatLast(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count,
                            float* sums) {
    if (rows == kCount) return GemmFloatRows<kCount>(panel, scales, x, count, sums);
    if constexpr (kCount > 1) GemmFloatLast<kCount - 1>(panel, scales, x, rows, count, sums);
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_H_
