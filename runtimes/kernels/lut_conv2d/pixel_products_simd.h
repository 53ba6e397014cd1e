// The loops of pixel_products.h, written once for all instruction sets.
//
// `Simd` brings, of vectors of bytes and of 32-bit lanes, one a pixel:
//   Ints Quantized(x, inverse, zero)      as ImageGrid says, without the byte offset
//   Ints Shifted<kBits>(Ints), Or, Xor, Add(Ints, Ints), SetInts(int32), Store(uint8_t*, Ints)
//   Floats LoadFirst(from, count), StoreFirst(uint8_t*, Ints, count)   the first lanes, nothing behind them is touched
//   Bytes Load(from), Operand ToOperand(Bytes)
//   Four LoadFour(from), Row<r>(Four)     the weights of four rows, and one row's four bytes beside every pixel
//   Sums Start(int32), Dot(Sums, Operand, row), Floats ToFloats(Sums)
//   Sums DotOfPair(Sums, Operand[2], row[2])   where kGroupsAtOnce is 2
//   Ints SumOfFours(Ints, Bytes)          adds each lane's four signed bytes
// and the numbers kRowsAtOnce (a multiple of 4) and kVectorsAtOnce, whose sums stay in registers.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_SIMD_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_SIMD_H_

#include "kernels/epilogue/activation.h"
#include "kernels/lut_conv2d/pixel_products.h"

namespace edgecomp {

template <class Simd>
class PixelProducts {
 public:
  static constexpr PixelProductsKernels Kernels(int32_t largest_weight = 127,
                                                const PixelProductsKernels* larger_weights = nullptr) {
    return {Simd::kByteOffset, ExtendRange, Quantize, SumRows, Multiply, largest_weight, larger_weights};
  }

 private:
  using V = FloatVector<Simd>;
  using Floats = typename V::Floats;
  using Ints = typename Simd::Ints;

  static constexpr int kLanes = V::kLanes;
  static constexpr int kVectorBytes = kLanes * kQuadBytes;
  static constexpr int kRows = Simd::kRowsAtOnce;
  static constexpr int kVectors = Simd::kVectorsAtOnce;
  static constexpr int kGroups = Simd::kGroupsAtOnce;
  static_assert(kTileRows % kRows == 0 && kRows % 4 == 0 && kRowsWritten % kRows == 0, "parts of tiles");
  static_assert(kPixelsWritten % kLanes == 0 && kLanes * kVectors <= kPixelSlack, "whole vectors");

  static void ExtendRange(const float* x, int64_t count, ValueRange* range) {
    constexpr int kChains = 2;
    Floats least[kChains], most[kChains], not_finite[kChains];
    for (int c = 0; c < kChains; ++c) {
      least[c] = V::Set(range->least);
      most[c] = V::Set(range->most);
      not_finite[c] = V::Set(range->not_finite);
    }
    const Floats nothing = V::Set(0.0f);
    const auto extend = [&](int c, Floats v) EC_LAMBDA_INLINE {
      least[c] = V::AtMost(v, least[c]);
      most[c] = V::AtLeast(v, most[c]);
      not_finite[c] = V::MultiplyAdd(v, nothing, not_finite[c]);  // a NaN from then on: comparisons would forget it
    };
    int64_t i = 0;
    for (; i + kChains * kLanes <= count; i += kChains * kLanes) {
      for (int c = 0; c < kChains; ++c) extend(c, V::Load(x + i + c * kLanes));
    }
    for (; i < count; i += kLanes) {
      float values[kLanes] = {};
      std::memcpy(values, x + i, static_cast<size_t>(count - i < kLanes ? count - i : kLanes) * sizeof(float));
      extend(0, V::Load(values));
    }
    for (int c = 0; c < kChains; ++c) {
      float lanes[3][kLanes];
      V::Store(lanes[0], least[c]);
      V::Store(lanes[1], most[c]);
      V::Store(lanes[2], not_finite[c]);
      for (int lane = 0; lane < kLanes; ++lane) {
        range->least = lanes[0][lane] < range->least ? lanes[0][lane] : range->least;
        range->most = lanes[1][lane] > range->most ? lanes[1][lane] : range->most;
        range->not_finite += lanes[2][lane];
      }
    }
  }

  template <int kChannels, class Load>
  static EC_INLINE Ints QuadsOf(const Load& load, Floats inverse, Ints zero, Ints rest) {
    Ints quads = rest;
    Unroll<Simd, kChannels>([&](auto channel) EC_LAMBDA_INLINE {
      quads = Simd::Or(quads, Simd::template Shifted<8 * channel>(Simd::Quantized(load(channel), inverse, zero)));
    });
    return quads;
  }

  template <int kChannels>
  static void QuantizeChannels(const float* x, int64_t channel_stride, int64_t count, ImageGrid grid, uint8_t* quads) {
    constexpr uint32_t kOffsets = Simd::kByteOffset * 0x01010101u;
    const uint32_t all = static_cast<uint32_t>(grid.zero) * 0x01010101u;
    const Ints rest = Simd::SetInts(static_cast<int32_t>(kChannels == 4 ? 0 : all << (8 * kChannels % 32)));
    const Ints offsets = Simd::SetInts(static_cast<int32_t>(kOffsets));
    const Floats inverse = V::Set(grid.inverse);
    const Ints zero = Simd::SetInts(grid.zero);
    const auto finish = [&](Ints q) EC_LAMBDA_INLINE { return kOffsets == 0 ? q : Simd::Xor(q, offsets); };
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const auto load = [&](int64_t c) EC_LAMBDA_INLINE { return V::Load(x + c * channel_stride + i); };
      Simd::Store(quads + i * kQuadBytes, finish(QuadsOf<kChannels>(load, inverse, zero, rest)));
    }
    if (i == count) return;
    const auto load_left = [&](int64_t c) EC_LAMBDA_INLINE { return Simd::LoadFirst(x + c * channel_stride + i, count - i); };
    Simd::StoreFirst(quads + i * kQuadBytes, finish(QuadsOf<kChannels>(load_left, inverse, zero, rest)), count - i);
  }

  static void Quantize(const float* x, int64_t channel_stride, int64_t channels, int64_t count, ImageGrid grid, uint8_t* quads) {
    switch (channels) {
      case 1:
        return QuantizeChannels<1>(x, channel_stride, count, grid, quads);
      case 2:
        return QuantizeChannels<2>(x, channel_stride, count, grid, quads);
      case 3:
        return QuantizeChannels<3>(x, channel_stride, count, grid, quads);
      default:
        return QuantizeChannels<4>(x, channel_stride, count, grid, quads);
    }
  }

  static void SumRows(const uint8_t* panel, int64_t groups, int32_t* sums) {
    constexpr int kParts = kTileRows / kLanes, kChains = kParts < 4 ? 4 / kParts : 1;
    Ints total[kParts][kChains];
    for (auto& part : total) {
      for (Ints& chain : part) chain = Simd::SetInts(0);
    }
    const auto add = [&](int64_t g, int chain) EC_LAMBDA_INLINE {
      for (int part = 0; part < kParts; ++part) {
        Ints& sum = total[part][chain];
        sum = Simd::SumOfFours(sum, Simd::Load(panel + g * kPlaneBytes + part * kVectorBytes));
      }
    };
    int64_t g = 0;
    for (; g + kChains <= groups; g += kChains) {
      for (int chain = 0; chain < kChains; ++chain) add(g + chain, chain);
    }
    for (; g < groups; ++g) add(g, 0);
    for (int part = 0; part < kParts; ++part) {
      for (int chain = 1; chain < kChains; ++chain) total[part][0] = Simd::Add(total[part][0], total[part][chain]);
      Simd::Store(reinterpret_cast<uint8_t*>(sums + part * kLanes), total[part][0]);
    }
  }

  template <int kUsed>
  using SumsOf = typename Simd::Sums[kRows][kUsed];

  // Adds the products of the groups up to `end`: each vector of pixels is loaded once for all rows.
  template <int kUsed>
  static EC_INLINE void AddGroups(const uint8_t* pixels, const int64_t*& offset, const int64_t* end, const uint8_t*& weights,
                                  SumsOf<kUsed>& sum) {
    using Operand = typename Simd::Operand;
    if constexpr (kGroups == 2) {
      for (; offset + 2 <= end; offset += 2, weights += 2 * kPlaneBytes) {
        Operand x[kUsed][2];
        for (int v = 0; v < kUsed; ++v) {
          for (int i = 0; i < 2; ++i) x[v][i] = Simd::ToOperand(Simd::Load(pixels + offset[i] + v * kVectorBytes));
        }
        Unroll<Simd, kRows / 4>([&](auto four) EC_LAMBDA_INLINE {
          const auto first = Simd::LoadFour(weights + 16 * four);
          const auto second = Simd::LoadFour(weights + 16 * four + kPlaneBytes);
          Unroll<Simd, 4>([&](auto r) EC_LAMBDA_INLINE {
            const auto w0 = Simd::template Row<r>(first);
            const auto w1 = Simd::template Row<r>(second);
            for (int v = 0; v < kUsed; ++v) sum[4 * four + r][v] = Simd::DotOfPair(sum[4 * four + r][v], x[v][0], w0, x[v][1], w1);
          });
        });
      }
    }
    for (; offset < end; ++offset, weights += kPlaneBytes) {
      Operand x[kUsed];
      for (int v = 0; v < kUsed; ++v) x[v] = Simd::ToOperand(Simd::Load(pixels + *offset + v * kVectorBytes));
      Unroll<Simd, kRows / 4>([&](auto four) EC_LAMBDA_INLINE {
        const auto rows = Simd::LoadFour(weights + 16 * four);
        Unroll<Simd, 4>([&](auto r) EC_LAMBDA_INLINE {
          const auto w = Simd::template Row<r>(rows);
          for (int v = 0; v < kUsed; ++v) sum[4 * four + r][v] = Simd::Dot(sum[4 * four + r][v], x[v], w);
        });
      });
    }
  }

  // kRows rows of the tile from `row` on and kUsed vectors of pixels, whose sums stay in registers. Their totals over blocks wait
  // in memory; compilers are kept from working on several rows' at once, for which they would move sums there, too.
  template <int kUsed>
  static void MultiplyPart(const PixelTile& tile, int64_t row, const uint8_t* pixels, float* out, int64_t out_stride) {
    alignas(64) float totals[kRows * kUsed * kLanes];
    const uint8_t* weights = tile.panel + row * kQuadBytes;
    const int64_t* offset = tile.offsets;
    out += row * out_stride;
    // What ReLU is: the larger one, a NaN where there is one.
    const Floats least = V::Set(tile.relu ? 0.0f : -__builtin_inff());
    const auto block = [&](int64_t b, auto from_bias, auto to_out) EC_LAMBDA_INLINE {
      SumsOf<kUsed> sum;
      const int32_t* start = tile.starts + b * kTileRows + row;
      Unroll<Simd, kRows>([&](auto r) EC_LAMBDA_INLINE {
        for (int v = 0; v < kUsed; ++v) sum[r][v] = Simd::Start(start[r]);
      });
      AddGroups<kUsed>(pixels, offset, tile.offsets + tile.ends[b + 1], weights, sum);
      const float *scale = tile.scales + b * kTileRows + row, *bias = tile.bias + row;
      Unroll<Simd, kRows>([&](auto r) EC_LAMBDA_INLINE {
        Unroll<Simd, kUsed>([&](auto v) EC_LAMBDA_INLINE {
          float* kept = totals + (r * kUsed + v) * kLanes;
          const Floats before = from_bias ? V::Set(bias[r]) : V::Load(kept);
          const Floats total = V::MultiplyAdd(Simd::ToFloats(sum[r][v]), V::Set(scale[r]), before);
          to_out ? V::Store(out + r * out_stride + v * kLanes, V::AtLeast(total, least)) : V::Store(kept, total);
        });
        __asm__ volatile("" : : : "memory");
      });
    };
    constexpr std::true_type kYes;
    constexpr std::false_type kNo;
    if (tile.blocks == 1) return block(0, kYes, kYes);
    block(0, kYes, kNo);
    for (int64_t b = 1; b < tile.blocks - 1; ++b) block(b, kNo, kNo);
    block(tile.blocks - 1, kNo, kYes);
  }

  template <int kUsed>
  static EC_INLINE int64_t MultiplyVectors(const PixelTile& tile, const uint8_t* pixels, float* out, int64_t out_stride) {
    for (int64_t row = 0; row < tile.rows; row += kRows) MultiplyPart<kUsed>(tile, row, pixels, out, out_stride);
    return kUsed * kLanes;
  }

  // Four vectors are two and two: the sums of one alone would wait for the latency of their products.
  static void Multiply(const PixelTile& tile, const uint8_t* pixels, int64_t count, float* out, int64_t out_stride) {
    for (int64_t i = 0; i < count;) {
      const int64_t left = count - i;
      const uint8_t* from = pixels + i * kQuadBytes;
      if (kVectors == 3 && ((left > kLanes && left <= 2 * kLanes) || (left > 3 * kLanes && left <= 4 * kLanes))) {
        i += MultiplyVectors<2>(tile, from, out + i, out_stride);
      } else if (left > (kVectors - 1) * kLanes) {
        i += MultiplyVectors<kVectors>(tile, from, out + i, out_stride);
      } else {
        i += MultiplyVectors<1>(tile, from, out + i, out_stride);
      }
    }
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_SIMD_H_
