// What the ARM variants of lut_matmul share: the quantisation of x, block scales, panels and the float product. See
// lut_decode_neon.h for `Tag`.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_H_

#include "kernels/epilogue/epilogue.h"
#include "kernels/lut_matmul/lut_decode_neon.h"

namespace edgecomp {

// Converts 4 bytes of a vector to float32. An index out of range looks up 0: each byte becomes the top of a 32-bit lane, and
// converting that as a number with 24 fractional bits gives back its value, sign included.
EC_INLINE float32x4_t NeonBytesToFloats(int8x16_t bytes, uint8x16_t index) {
  return vcvtq_n_f32_s32(vreinterpretq_s32_s8(vqtbl1q_s8(bytes, index)), 24);
}

// Indices for NeonBytesToFloats: bytes 4 part to 4 part + 3, the scales of a part's rows.
alignas(16) constexpr uint8_t kScaleIndex[kParts][16] = {
    {255, 255, 255, 0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3},
    {255, 255, 255, 4, 255, 255, 255, 5, 255, 255, 255, 6, 255, 255, 255, 7},
    {255, 255, 255, 8, 255, 255, 255, 9, 255, 255, 255, 10, 255, 255, 255, 11},
    {255, 255, 255, 12, 255, 255, 255, 13, 255, 255, 255, 14, 255, 255, 255, 15},
};
// Bytes column, column + 4, column + 8 and column + 12: a column of a group's weights.
alignas(16) constexpr uint8_t kColumnIndex[4][16] = {
    {255, 255, 255, 0, 255, 255, 255, 4, 255, 255, 255, 8, 255, 255, 255, 12},
    {255, 255, 255, 1, 255, 255, 255, 5, 255, 255, 255, 9, 255, 255, 255, 13},
    {255, 255, 255, 2, 255, 255, 255, 6, 255, 255, 255, 10, 255, 255, 255, 14},
    {255, 255, 255, 3, 255, 255, 255, 7, 255, 255, 255, 11, 255, 255, 255, 15},
};

// The 16 scales of a block, for kUsedParts parts from first_part on.
template <class Tag, int kUsedParts>
class NeonScales {
 public:
  EC_INLINE explicit NeonScales(int first_part) {
    const uint8_t* index = kScaleIndex[first_part];
    HideOrigin(index);
    for (int part = 0; part < kUsedParts; ++part) index_[part] = vld1q_u8(index + part * 16);
  }
  EC_INLINE void Convert(int8x16_t bytes, float32x4_t (&out)[kUsedParts]) const {
    for (int part = 0; part < kUsedParts; ++part) out[part] = NeonBytesToFloats(bytes, index_[part]);
  }
  static EC_INLINE void Convert(int8x16_t bytes, int32x4_t (&out)[kParts]) {
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    out[0] = vmovl_s16(vget_low_s16(low));
    out[1] = vmovl_high_s16(low);
    out[2] = vmovl_s16(vget_low_s16(high));
    out[3] = vmovl_high_s16(high);
  }

 private:
  uint8x16_t index_[kUsedParts];
};

// The integer product of Sums::kCount rows of x and a tile, Sums::kUsedParts parts at a time: what the registers hold. Sums adds up
// a block:
//
//   kSpans                             spans of a block where loops are made for a number of them, or 0
//   StartBlock()
//   StartSpan(q, columns)              row m of the span's x is at q + m * columns
//   StartSpanOfPair(span, q)           the same where kPairsSpans is set: with an even span, x of the next one is loaded as well
//   Add(group, part, weights)          the columns 4 group to 4 group + 3, in the order of NeonSpanDecoder::Decode
//   AddNibbles(codes, table)           a span of 4 bits without a decoder, where kAddsNibbles is set
//   Sum(m, part)                       the block's sums of 4 rows of the tile
template <class Tag, int kPlanes, class Sums>
class NeonProduct {
 public:
  __attribute__((noinline)) static void Run(const LutTile& tile, const QuantizedRows& x, const BlockCount& count, float* totals) {
    for (int first_part = 0; first_part < kParts; first_part += kUsedParts) {
      NeonProduct(tile, x, count, first_part).AddBlocks(count.blocks, totals + first_part * kPartRows);
    }
  }

 private:
  static constexpr int kCount = Sums::kCount;
  static constexpr int kUsedParts = Sums::kUsedParts;
  // One row straight from the planes is all of x, and its steps lie side by side.
  static constexpr bool kUnitStride = kCount == 1 && kPlanes < 8;
  // Where loops are made for short blocks, a sum times its scale fits an int32: fewer instructions than converting both.
  static constexpr bool kScalesInts = Sums::kSpans != 0;
  static_assert(!kScalesInts || (kUsedParts == kParts && Sums::kSpans * kSpanColumns * 127 * 127 * 127 <= INT32_MAX), "fits");
  // Blocks are so short that the loop's own instructions count.
  static constexpr bool kFourBlocks = kUnitStride && Sums::kAddsNibbles && kPlanes == 4 && Sums::kSpans != 0;

  // Codes of 3 and 6 bits leave no registers for x of a second span.
  static constexpr bool kPairsSpans = Sums::kPairsSpans && Sums::kSpans != 0 && Sums::kSpans % 2 == 0 && kPlanes % 3 != 0;

  EC_INLINE NeonProduct(const LutTile& tile, const QuantizedRows& x, const BlockCount& count, int first_part)
      : decoder_(tile.tables),
        block_scales_(first_part),
        codes_(tile.codes + first_part * kPartBytes),
        scales_(tile.scales),
        q_(x.q),
        step_(x.step),
        stride_(x.stride),
        columns_(count.columns),
        spans_(count.spans_per_block) {}

  EC_INLINE void AddBlocks(int64_t blocks, float* totals) {
    float32x4_t total[kCount][kUsedParts];
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) total[m][part] = vld1q_f32(totals + m * kTileRows + part * kPartRows);
    }
    if constexpr (kFourBlocks) {
      for (; blocks >= 4; blocks -= 4) AddFourBlocks(total);
    }
    for (; blocks != 0; --blocks) {
      Sums sums;
      AddSpans(sums);
      const int8x16_t scales = vld1q_s8(scales_);
      scales_ += kTileRows;
      HideOrigin(scales_);
      AddScaled(
          sums, scales, total, [&](float32x4_t a, float32x4_t b, int m) EC_LAMBDA_INLINE { return vfmaq_n_f32(a, b, step_[m]); },
          [&](float32x4_t scale, int m) EC_LAMBDA_INLINE { return vmulq_n_f32(scale, step_[m]); });
      step_ += kUnitStride ? 1 : stride_;
      HideOrigin(step_);
    }
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) vst1q_f32(totals + m * kTileRows + part * kPartRows, total[m][part]);
    }
  }

  EC_INLINE void AddFourBlocks(float32x4_t (&total)[kCount][kUsedParts]) {
    const float32x4_t steps = vld1q_f32(step_);
    step_ += 4;
    HideOrigin(step_);
    const int8x16x4_t scales = vld1q_s8_x4(scales_);
    scales_ += 4 * kTileRows;
    HideOrigin(scales_);
    Sums sums;
    Unroll<Tag, 4>([&](auto block) EC_LAMBDA_INLINE {
      sums.StartBlock();
      Unroll<Tag, Sums::kSpans>(
          [&](auto span) EC_LAMBDA_INLINE { AddSpanOfPair(sums, std::integral_constant<int, block * Sums::kSpans + span>{}); });
      AddScaled(
          sums, scales.val[block], total,
          [&](float32x4_t a, float32x4_t b, int) EC_LAMBDA_INLINE { return vfmaq_laneq_f32(a, b, steps, block); },
          [&](float32x4_t scale, int) EC_LAMBDA_INLINE { return vmulq_laneq_f32(scale, steps, block); });
    });
  }

  // A block's sums.
  EC_INLINE void AddSpans(Sums& sums) {
    sums.StartBlock();
    if constexpr (kPairsSpans) {
      Unroll<Tag, Sums::kSpans>([&](auto span) EC_LAMBDA_INLINE { AddSpanOfPair(sums, span); });
    } else if constexpr (Sums::kSpans != 0) {
      Unroll<Tag, Sums::kSpans>([&](auto) EC_LAMBDA_INLINE { AddSpan(sums); });
    } else {
      int64_t spans = spans_;
      do AddSpan(sums);
      while (--spans != 0);
    }
  }

  // times_step(scale, m) is the scale times the block's step of row m, add_times_step(a, b, m) is a + b times the step.
  template <class AddTimesStep, class TimesStep>
  EC_INLINE void AddScaled(const Sums& sums, int8x16_t scales, float32x4_t (&total)[kCount][kUsedParts],
                           const AddTimesStep& add_times_step, const TimesStep& times_step) {
    std::conditional_t<kScalesInts, int32x4_t, float32x4_t> scale[kUsedParts];
    block_scales_.Convert(scales, scale);
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) {
        const int32x4_t sum = sums.Sum(m, part);
        if constexpr (kScalesInts) {
          total[m][part] = add_times_step(total[m][part], vcvtq_f32_s32(vmulq_s32(sum, scale[part])), m);
        } else {
          total[m][part] = vfmaq_f32(total[m][part], vcvtq_f32_s32(sum), times_step(scale[part], m));
        }
      }
    }
  }

  EC_INLINE void AddSpan(Sums& sums) {
    sums.StartSpan(q_, columns_);
    q_ += kSpanColumns;
    HideOrigin(q_);
    AddProducts(sums);
  }

  template <class Span>
  EC_INLINE void AddSpanOfPair(Sums& sums, Span span) {
    sums.StartSpanOfPair(span, q_);
    AddProducts(sums);
  }

  EC_INLINE void AddProducts(Sums& sums) {
    if constexpr (kPlanes == 4 && Sums::kAddsNibbles) {
      sums.AddNibbles(codes_, decoder_.table());
    } else {
      decoder_.template Decode<kUsedParts>(
          codes_, [&](auto group, auto part, int8x16_t weights) EC_LAMBDA_INLINE { sums.Add(group, part, weights); });
    }
  }

  const NeonSpanDecoder<Tag, kPlanes> decoder_;
  const NeonScales<Tag, kUsedParts> block_scales_;
  const uint8_t* codes_;
  const int8_t* scales_;
  const int8_t* q_;
  const float* step_;
  const int64_t stride_;
  const int64_t columns_;
  const int64_t spans_;
};

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
        GemmInt8,
        GemmFloat,
        Epilogue<Tag>::Activate,
        Epilogue<Tag>::StoreTile,
    };
  }

  template <int kPlanes>
  static void Decode(const LutTile& tile, int64_t spans, Panel, uint8_t* panel) {
    const NeonSpanDecoder<Tag, kPlanes> decoder(tile.tables);
    const uint8_t* codes = tile.codes;
    for (int64_t s = 0; s < spans; ++s, panel += kColumnGroups * kPlaneBytes) {
      decoder.template Decode<kParts>(codes, [&](auto group, auto part, int8x16_t weights) EC_LAMBDA_INLINE {
        vst1q_s8(reinterpret_cast<int8_t*>(panel) + group * kPlaneBytes + part * kPartBytes, weights);
      });
    }
  }

 private:
  static void QuantizeBlock(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step, int32_t* minus_sum) {
    if (count % kSpanColumns != 0) return QuantizeOddBlock(x, count, block_size, q, step, minus_sum);
    uint32x4_t magnitudes = vdupq_n_u32(0);
    int64_t i = 0;
    do {
      magnitudes = MaxMagnitudes(magnitudes, x + i);
      i += kSpanColumns;
    } while (i < count);
    int32x4_t sums = vdupq_n_s32(0);
    float inverse;
    i = 0;
    if (StepOf(magnitudes, step, &inverse)) {
      do {
        sums = QuantizeSpan(x + i, inverse, q + i, sums);
        i += kSpanColumns;
      } while (i < count);
    }
    *minus_sum = -vaddvq_s32(sums);
    if (i < block_size) __builtin_memset(q + i, 0, static_cast<size_t>(block_size - i));
  }

  // The last values are filled up with zeros to a whole span.
  __attribute__((noinline)) static void QuantizeOddBlock(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step,
                                                         int32_t* minus_sum) {
    float tail[kSpanColumns] = {};
    const int64_t whole = count / kSpanColumns * kSpanColumns;
    __builtin_memcpy(tail, x + whole, static_cast<size_t>(count - whole) * sizeof(float));
    uint32x4_t magnitudes = MaxMagnitudes(vdupq_n_u32(0), tail);
    for (int64_t i = 0; i < whole; i += kSpanColumns) magnitudes = MaxMagnitudes(magnitudes, x + i);
    __builtin_memset(q, 0, static_cast<size_t>(block_size));
    int32x4_t sums = vdupq_n_s32(0);
    float inverse;
    if (StepOf(magnitudes, step, &inverse)) {
      for (int64_t i = 0; i < whole; i += kSpanColumns) sums = QuantizeSpan(x + i, inverse, q + i, sums);
      sums = QuantizeSpan(tail, inverse, q + whole, sums);
    }
    *minus_sum = -vaddvq_s32(sums);
  }

  // A panel has the layout of 8 planes.
  static void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count,
                       float* sums) {
    const LutTile tile = {panel, scales, nullptr, nullptr};
    for (int64_t m = 0; m < rows; m += kMostDirectRows) {
      const QuantizedRows from_m = {x.q + m * count.columns, x.step + m, x.minus_sum + m, x.stride};
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

  // The step of a block, and 127 / absmax; false where every q is 0.
  static EC_INLINE bool StepOf(uint32x4_t magnitudes, float* step, float* inverse) {
    constexpr uint32_t kInfinity = 0x7f800000;
    const uint32_t most = vmaxvq_u32(magnitudes);
    float absmax;
    __builtin_memcpy(&absmax, &most, sizeof(absmax));
    if (most >= kInfinity || absmax < 1e-30f) {
      *step = most >= kInfinity ? __builtin_nanf("") : 0.0f;
      return false;
    }
    *step = absmax / 127.0f;
    *inverse = 127.0f / absmax;
    return true;
  }

  // As integers, magnitudes keep their order and NaN is above infinity: a comparison of floats would lose a NaN.
  static EC_INLINE uint32x4_t MaxMagnitudes(uint32x4_t most, const float* x) {
    for (int i = 0; i < kSpanColumns; i += 16) {
      const float32x4x4_t values = vld1q_f32_x4(x + i);
      for (const float32x4_t four : values.val) most = vmaxq_u32(most, vreinterpretq_u32_f32(vabsq_f32(four)));
    }
    return most;
  }

  static EC_INLINE int16x8_t RoundToInt16(float32x4_t low, float32x4_t high, float inverse) {
    const int32x4_t first = vcvtnq_s32_f32(vmulq_n_f32(low, inverse)), second = vcvtnq_s32_f32(vmulq_n_f32(high, inverse));
    return vuzp1q_s16(vreinterpretq_s16_s32(first), vreinterpretq_s16_s32(second));
  }

  // No clamp: |x| * inverse is below 127.5 for |x| <= absmax, whatever the two roundings do.
  static EC_INLINE int32x4_t QuantizeSpan(const float* x, float inverse, int8_t* q, int32x4_t sums) {
    for (int i = 0; i < kSpanColumns; i += 16) {
      const float32x4x4_t values = vld1q_f32_x4(x + i);
      const int16x8_t low = RoundToInt16(values.val[0], values.val[1], inverse);
      const int16x8_t high = RoundToInt16(values.val[2], values.val[3], inverse);
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
    uint8x16_t column[4];
    for (int j = 0; j < 4; ++j) column[j] = vld1q_u8(kColumnIndex[j]);
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
              const float32x4_t w = NeonBytesToFloats(bytes, column[j]);
              for (int m = 0; m < kCount; ++m) sum[part][m] = vfmaq_laneq_f32(sum[part][m], w, x4[m], j);
            });
          }
        }
        float32x4_t scale[kUsedParts];
        block_scales.Convert(vld1q_s8(scales + b * kTileRows), scale);
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
