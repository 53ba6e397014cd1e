// The loops of lut_matmul, written once for the instruction sets of x86; see lut_decode_simd.h for how one takes part.
//
// Weights take the unsigned side of a product of bytes with Simd::kOffset added, a power of two or 0; a sum then starts at
// -kOffset * (sum of the activations), which is the same for all rows of the tile.
//
// A vector of 32-bit lanes belongs to Simd::kRows rows of the tile, one lane a row: no sum ever crosses lanes.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_SIMD_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_SIMD_H_

#include "kernels/epilogue/epilogue.h"
#include "kernels/lut_matmul/lut_decode_simd.h"

namespace edgecomp {

// A product that takes a panel otherwise names its offset.
template <class Simd, uint8_t kPanelOffset = Simd::kOffset>
class LutMatMulSimd {
 public:
  static constexpr LutMatMulKernels Kernels(int32_t largest_entry = 127, const LutMatMulKernels* small_entries = nullptr) {
    return {
        QuantizeBlock,
        {nullptr, DirectInt8<1>, DirectInt8<2>, DirectInt8<3>, DirectInt8<4>, DirectInt8<5>, DirectInt8<6>, nullptr, DirectInt8<8>},
        {nullptr, Decode<1>, Decode<2>, Decode<3>, Decode<4>, Decode<5>, Decode<6>, nullptr, Decode<8>},
        GemmInt8,
        GemmFloat,
        Epilogue<Simd>::Activate,
        Epilogue<Simd>::StoreTile,
        largest_entry,
        small_entries,
    };
  }

 private:
  using Bytes = typename Simd::Bytes;
  using Ints = typename Simd::Ints;
  using Floats = typename Simd::Floats;

  static constexpr int kRows = Simd::kRows;
  static constexpr int kParts = kTileRows / kRows;  // vectors that a tile's 16 rows take
  static constexpr int kPartBytes = kPlaneBytes / kParts;

  // One shift, since the sum comes negated: every row of x has a start for each block.
  static EC_INLINE Ints StartSum(const int32_t& minus_sum) {
    if constexpr (Simd::kOffset == 0) return Simd::ZeroInts();
    return Simd::template ShiftLeft<Log2(Simd::kOffset)>(Simd::SetInts(minus_sum));
  }
  static constexpr int Log2(int power) { return power <= 1 ? 0 : 1 + Log2(power / 2); }

  // Codes are read as fast as memory gives them. How far ahead to ask was measured with one row: 512 to 4096 bytes are all better
  // than the hardware's guess alone, 2048 best. Asking beyond the codes is harmless.
  static constexpr int kPrefetchBytes = 2048;
  template <int kPlanes>
  static EC_INLINE void PrefetchSpan(const uint8_t* span) {
    for (int p = 0; p < kPlanes; ++p) __builtin_prefetch(span + p * kPlaneBytes);
  }

  static void QuantizeBlock(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step, int32_t* minus_sum) {
    if (count < block_size) return QuantizeShortBlock(x, count, block_size, q, step, minus_sum);
    Ints magnitudes = Simd::ZeroInts();
    for (int64_t i = 0; i < count; i += kRows) magnitudes = Simd::MaxMagnitudes(magnitudes, x + i);
    float inverse;
    if (!MakeStep(Simd::LargestLane(magnitudes), step, &inverse)) {
      *minus_sum = 0;
      __builtin_memset(q, 0, static_cast<size_t>(block_size));
      return;
    }
    Ints sums = Simd::ZeroInts();
    for (int64_t i = 0; i < count; i += kSpanColumns) sums = Simd::Add(sums, Simd::QuantizeSpan(x + i, inverse, q + i));
    *minus_sum = -Simd::SumOfLanes(sums);
  }

  // The last block of an odd K: whole spans, then one filled up with zeros, then nothing but zeros.
  __attribute__((noinline)) static void QuantizeShortBlock(const float* x, int64_t count, int64_t block_size, int8_t* q,
                                                           float* step, int32_t* minus_sum) {
    float tail[kSpanColumns] = {};
    const int64_t whole = count / kSpanColumns * kSpanColumns;
    for (int64_t i = whole; i < count; ++i) tail[i - whole] = x[i];
    Ints magnitudes = Simd::ZeroInts();
    for (int64_t i = 0; i < whole; i += kRows) magnitudes = Simd::MaxMagnitudes(magnitudes, x + i);
    for (int i = 0; i < kSpanColumns; i += kRows) magnitudes = Simd::MaxMagnitudes(magnitudes, tail + i);
    __builtin_memset(q, 0, static_cast<size_t>(block_size));
    *minus_sum = 0;
    float inverse;
    if (!MakeStep(Simd::LargestLane(magnitudes), step, &inverse)) return;
    Ints sums = Simd::ZeroInts();
    for (int64_t i = 0; i < whole; i += kSpanColumns) sums = Simd::Add(sums, Simd::QuantizeSpan(x + i, inverse, q + i));
    if (whole < count) sums = Simd::Add(sums, Simd::QuantizeSpan(tail, inverse, q + whole));
    *minus_sum = -Simd::SumOfLanes(sums);
  }

  // From the bits of the largest magnitude: as integers magnitudes keep their order and NaN is above infinity, where a comparison
  // of floats would lose a NaN. False where nothing is left to quantise. No clamp later: |x| * inverse is below 127.5 for |x| <=
  // absmax, whatever the two roundings do.
  static EC_INLINE bool MakeStep(int32_t most, float* step, float* inverse) {
    constexpr int32_t kInfinity = 0x7f800000;
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

  // A few rows of x straight from the planes: decoded weights never leave the registers. One row takes a tile's parts side by side;
  // the sums of more rows fill the registers with one part.
  template <int kPlanes, int kCount>
  static void DirectInt8Rows(const LutTile& tile, const QuantizedRows& x, BlockCount count, float* sums) {
    constexpr int kUsedParts = kCount == 1 ? kParts : 1;
    for (int part = 0; part < kParts; part += kUsedParts) {
      DirectInt8Parts<kPlanes, kCount, kUsedParts>(
          {tile.codes + part * kPartBytes, tile.scales + part * kRows, nullptr, tile.tables}, x, count, sums + part * kRows);
    }
  }

  template <int kPlanes, int kCount, int kUsedParts>
  static EC_INLINE void DirectInt8Parts(const LutTile& tile, const QuantizedRows& x, const BlockCount& count, float* sums) {
    // One or two rows need several chains of sums each, where one alone would wait for the latency of its own dot products.
    constexpr int kChains = kCount <= 2 ? Simd::kDotChains : 1;
    const SpanDecoder<Simd, kPlanes> decoder(*tile.tables, Simd::kOffset);
    const uint8_t* span = tile.codes;
    const int8_t* q = x.q;
    Floats total[kUsedParts][kCount];
    for (int part = 0; part < kUsedParts; ++part) {
      for (int m = 0; m < kCount; ++m) total[part][m] = Simd::LoadFloats(sums + m * kTileRows + part * kRows);
    }
    for (int64_t b = 0; b < count.blocks; ++b) {
      Ints sum[kUsedParts][kCount][kChains];
      for (int part = 0; part < kUsedParts; ++part) {
        for (int m = 0; m < kCount; ++m) {
          sum[part][m][0] = StartSum(x.minus_sum[b * x.stride + m]);
          for (int chain = 1; chain < kChains; ++chain) sum[part][m][chain] = Simd::ZeroInts();
        }
      }
      for (int64_t s = 0; s < count.spans_per_block; ++s, span += kPlanes * kPlaneBytes, q += kSpanColumns) {
        if constexpr (kCount == 1) PrefetchSpan<kPlanes>(span + kPrefetchBytes);
        typename Simd::Activations activations;
        decoder.template Decode<kUsedParts>(span, [&](auto group, auto part, Bytes weights) EC_LAMBDA_INLINE {
          if constexpr (kCount == 1) {
            if constexpr (part == 0) activations = Simd::ToActivations(Simd::Broadcast4(q + 4 * group));
            Ints& chain = sum[part][0][group % kChains];
            chain = Simd::Dot(chain, weights, activations);
          } else {
            const auto prepared = Simd::ToWeights(weights);
            for (int m = 0; m < kCount; ++m) {
              Ints& chain = sum[part][m][group % kChains];
              chain = Simd::Dot(chain, prepared, Simd::Broadcast4(q + m * count.columns + 4 * group));
            }
          }
        });
      }
      for (int part = 0; part < kUsedParts; ++part) {
        for (int m = 0; m < kCount; ++m) {
          Ints whole = sum[part][m][0];
          for (int chain = 1; chain < kChains; ++chain) whole = Simd::Add(whole, sum[part][m][chain]);
          total[part][m] = Simd::AddScaled(total[part][m], Simd::ToFloats(whole), tile.scales + b * kTileRows + part * kRows,
                                           x.step[b * x.stride + m]);
        }
      }
    }
    for (int part = 0; part < kUsedParts; ++part) {
      for (int m = 0; m < kCount; ++m) Simd::Store(sums + m * kTileRows + part * kRows, total[part][m]);
    }
  }

  template <int kPlanes>
  static void DirectInt8(const LutTile& tile, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
    static_assert(kMostDirectRows == 4, "one case a number of rows");
    switch (rows) {
      case 1:
        return DirectInt8Rows<kPlanes, 1>(tile, x, count, sums);
      case 2:
        return DirectInt8Rows<kPlanes, 2>(tile, x, count, sums);
      case 3:
        return DirectInt8Rows<kPlanes, 3>(tile, x, count, sums);
      default:
        return DirectInt8Rows<kPlanes, 4>(tile, x, count, sums);
    }
  }

  template <int kPlanes>
  static void Decode(const LutTile& tile, int64_t spans, Panel kind, uint8_t* panel) {
    const SpanDecoder<Simd, kPlanes> decoder(*tile.tables, kind == Panel::kInt8 ? kPanelOffset : 0);
    const uint8_t* span = tile.codes;
    for (int64_t s = 0; s < spans; ++s, span += kPlanes * kPlaneBytes, panel += kColumnGroups * kPlaneBytes) {
      PrefetchSpan<kPlanes>(span + kPrefetchBytes);
      decoder.template Decode<kParts>(span, [&](auto group, auto part, Bytes weights) EC_LAMBDA_INLINE {
        Simd::Store(panel + group * kPlaneBytes + part * kPartBytes, weights);
      });
    }
  }

  // kCount rows of x at a time, and some parts of the tile: each vector of weights is loaded once for all of the rows, each group
  // of activations once for all of the parts, and the sums stay in registers.
  template <int kCount>
  static void GemmInt8Rows(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, BlockCount count, float* sums) {
    constexpr int kUsedParts = Simd::kInt8PartsAtOnce;
    constexpr int kGroups = Simd::kInt8GroupsAtOnce;
    const int64_t columns = count.columns;
    for (int first = 0; first < kParts; first += kUsedParts) {
      const uint8_t* weights = panel + first * kPartBytes;
      const int8_t* scale = scales + first * kRows;
      float* to = sums + first * kRows;
      Floats total[kUsedParts][kCount];
      for (int part = 0; part < kUsedParts; ++part) {
        for (int m = 0; m < kCount; ++m) total[part][m] = Simd::LoadFloats(to + m * kTileRows + part * kRows);
      }
      const int8_t* q = x.q;
      for (int64_t b = 0; b < count.blocks; ++b, scale += kTileRows) {
        Ints sum[kUsedParts][kCount];
        for (int m = 0; m < kCount; ++m) {
          const Ints start = StartSum(x.minus_sum[b * x.stride + m]);
          for (int part = 0; part < kUsedParts; ++part) sum[part][m] = start;
        }
        for (int64_t i = 0; i < count.spans_per_block * kColumnGroups; i += kGroups) {
          decltype(Simd::ToWeights(Simd::Load(weights))) w[kUsedParts][kGroups];
          for (int g = 0; g < kGroups; ++g, weights += kPlaneBytes) {
            for (int part = 0; part < kUsedParts; ++part) w[part][g] = Simd::ToWeights(Simd::Load(weights + part * kPartBytes));
          }
          for (int m = 0; m < kCount; ++m) {
            Bytes activations[kGroups];
            for (int g = 0; g < kGroups; ++g) activations[g] = Simd::Broadcast4(q + m * columns + 4 * g);
            for (int part = 0; part < kUsedParts; ++part) {
              if constexpr (kGroups == 1) {
                sum[part][m] = Simd::Dot(sum[part][m], w[part][0], activations[0]);
              } else {
                sum[part][m] = Simd::DotOfPair(sum[part][m], w[part], activations);
              }
            }
          }
          q += 4 * kGroups;
        }
        for (int part = 0; part < kUsedParts; ++part) {
          for (int m = 0; m < kCount; ++m) {
            total[part][m] =
                Simd::AddScaled(total[part][m], Simd::ToFloats(sum[part][m]), scale + part * kRows, x.step[b * x.stride + m]);
          }
        }
      }
      for (int part = 0; part < kUsedParts; ++part) {
        for (int m = 0; m < kCount; ++m) Simd::Store(to + m * kTileRows + part * kRows, total[part][m]);
      }
    }
  }

  template <int kCount>
  static void GemmFloatRows(const uint8_t* panel, const int8_t* scales, const float* x, BlockCount count, float* sums) {
    constexpr int kChains = kCount <= 2 ? 2 : 1;  // as in DirectInt8Rows
    const int64_t columns = count.columns;
    for (int part = 0; part < kParts; ++part) {
      const uint8_t* weights = panel + part * kPartBytes;
      Floats total[kCount];
      for (int m = 0; m < kCount; ++m) total[m] = Simd::LoadFloats(sums + m * kTileRows + part * kRows);
      const float* column = x;
      for (int64_t b = 0; b < count.blocks; ++b) {
        Floats sum[kCount][kChains];
        for (int m = 0; m < kCount; ++m) {
          for (Floats& chain : sum[m]) chain = Simd::ZeroFloats();
        }
        for (int64_t i = 0; i < count.spans_per_block * kColumnGroups; ++i, weights += kPlaneBytes, column += 4) {
          const Bytes w = Simd::Load(weights);
          const Floats w0 = Simd::template ByteToFloats<0>(w), w1 = Simd::template ByteToFloats<1>(w);
          const Floats w2 = Simd::template ByteToFloats<2>(w), w3 = Simd::template ByteToFloats<3>(w);
          for (int m = 0; m < kCount; ++m) {
            const float* row = column + m * columns;
            Floats& even = sum[m][0];
            Floats& odd = sum[m][kChains - 1];
            even = Simd::MultiplyAdd(w0, row[0], even);
            odd = Simd::MultiplyAdd(w1, row[1], odd);
            even = Simd::MultiplyAdd(w2, row[2], even);
            odd = Simd::MultiplyAdd(w3, row[3], odd);
          }
        }
        for (int m = 0; m < kCount; ++m) {
          const Floats whole = kChains == 1 ? sum[m][0] : Simd::Add(sum[m][0], sum[m][kChains - 1]);
          total[m] = Simd::AddScaled(total[m], whole, scales + b * kTileRows + part * kRows, 1.0f);
        }
      }
      for (int m = 0; m < kCount; ++m) Simd::Store(sums + m * kTileRows + part * kRows, total[m]);
    }
  }

  // The instance for the last `rows` (1 to kCount) rows.
  template <int kCount>
  static void GemmInt8Last(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count,
                           float* sums) {
    if (rows == kCount) return GemmInt8Rows<kCount>(panel, scales, x, count, sums);
    if constexpr (kCount > 1) GemmInt8Last<kCount - 1>(panel, scales, x, rows, count, sums);
  }
  template <int kCount>
  static void GemmFloatLast(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count,
                            float* sums) {
    if (rows == kCount) return GemmFloatRows<kCount>(panel, scales, x, count, sums);
    if constexpr (kCount > 1) GemmFloatLast<kCount - 1>(panel, scales, x, rows, count, sums);
  }

  static void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count,
                       float* sums) {
    for (int64_t m = 0; m < rows; m += Simd::kInt8RowsAtOnce) {
      const QuantizedRows from_m = {x.q + m * count.columns, x.step + m, x.minus_sum + m, x.stride};
      const int64_t left = rows - m < Simd::kInt8RowsAtOnce ? rows - m : Simd::kInt8RowsAtOnce;
      GemmInt8Last<Simd::kInt8RowsAtOnce>(panel, scales, from_m, left, count, sums + m * kTileRows);
    }
  }

  static void GemmFloat(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count, float* sums) {
    for (int64_t m = 0; m < rows; m += Simd::kFloatRowsAtOnce) {
      const int64_t left = rows - m < Simd::kFloatRowsAtOnce ? rows - m : Simd::kFloatRowsAtOnce;
      GemmFloatLast<Simd::kFloatRowsAtOnce>(panel, scales, x + m * count.columns, left, count, sums + m * kTileRows);
    }
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_SIMD_H_
