// Armv8.0 without a dot product: Cortex-A53, A72 and A73; Raspberry Pi 3 and 4.
#include "kernels/lut_matmul/lut_matmul_neon.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulNeon;

namespace {

struct Neon;

// Products of int8 add up in 16-bit lanes, and pairs of those in 32-bit lanes. A 16-bit lane holds kProducts products exactly where
// no magnitude in the codebook is above 32767 / (127 * kProducts).
template <int kRowsOfX, int kPartsAtOnce, int kSpansOfBlock, int kProducts>
class SmlalSums {
 public:
  static constexpr int kCount = kRowsOfX;
  static constexpr int kUsedParts = kPartsAtOnce;
  static constexpr int kSpans = kSpansOfBlock;
  static constexpr bool kAddsNibbles = false;
  static constexpr bool kPairsSpans = false;

  EC_INLINE void StartBlock() {
    if constexpr (kSpans == 1) return;  // the first products start the sums
    for (auto& row : sum_) {
      for (auto& part : row) part[0] = part[1] = vdupq_n_s32(0);
    }
  }
  EC_INLINE void StartSpan(const int8_t* q, int64_t columns) {
    for (int m = 0; m < kCount; ++m) next_[m] = q + m * columns;
  }
  template <class Group, class Part>
  EC_INLINE void Add(Group group, Part part, int8x16_t weights) {
    for (int m = 0; m < kCount; ++m) {
      if constexpr (part == 0) LoadGroup(group, m);
      const int8x16_t q = q_[m][group];
      int16x8_t& low = narrow_[m][part][0];
      int16x8_t& high = narrow_[m][part][1];
      if constexpr (group % kProducts == 0) {
        low = vmull_s8(vget_low_s8(weights), vget_low_s8(q));
        high = vmull_high_s8(weights, q);
      } else {
        low = vmlal_s8(low, vget_low_s8(weights), vget_low_s8(q));
        high = vmlal_high_s8(high, weights, q);
      }
      if constexpr (kSpans == 1 && group == kProducts - 1) {
        sum_[m][part][0] = vpaddlq_s16(low);
        sum_[m][part][1] = vpaddlq_s16(high);
      } else if constexpr (group % kProducts == kProducts - 1) {
        sum_[m][part][0] = vpadalq_s16(sum_[m][part][0], low);
        sum_[m][part][1] = vpadalq_s16(sum_[m][part][1], high);
      }
    }
  }
  EC_INLINE int32x4_t Sum(int m, int part) const { return vpaddq_s32(sum_[m][part][0], sum_[m][part][1]); }

 private:
  // The 4 values of a group, repeated for the vector's 4 rows.
  EC_INLINE void LoadGroup(int group, int m) {
    int32_t four;
    __builtin_memcpy(&four, next_[m], sizeof(four));
    q_[m][group] = vreinterpretq_s8_s32(vdupq_n_s32(four));
    next_[m] += 4;
    HideOrigin(next_[m]);
  }

  int32x4_t sum_[kCount][kUsedParts][2];     // two lanes a row: rows 0 and 1, rows 2 and 3
  int16x8_t narrow_[kCount][kUsedParts][2];  // four lanes a row
  int8x16_t q_[kCount][kColumnGroups];
  const int8_t* next_[kCount];
};

struct SmlalProduct {
  template <int kPlanes, int kProducts>
  static void One(const LutTile& tile, const QuantizedRows& x, BlockCount count, float* sums) {
    return count.spans_per_block == 1 ? NeonProduct<Neon, kPlanes, SmlalSums<1, 4, 1, kProducts>>::Run(tile, x, count, sums)
                                      : NeonProduct<Neon, kPlanes, SmlalSums<1, 4, 0, kProducts>>::Run(tile, x, count, sums);
  }

  template <int kPlanes>
  static void Direct(const LutTile& tile, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
    static_assert(kMostDirectRows == 4, "one case a number of rows");
    switch (rows) {
      case 1:
        if constexpr (kPlanes < 8) {
          if (tile.tables->largest <= 32) return One<kPlanes, 8>(tile, x, count, sums);
          if (tile.tables->largest <= 64) return One<kPlanes, 4>(tile, x, count, sums);
        }
        return One<kPlanes, 2>(tile, x, count, sums);
      case 2:
        return NeonProduct<Neon, kPlanes, SmlalSums<2, 2, 0, 2>>::Run(tile, x, count, sums);
      case 3:
        return NeonProduct<Neon, kPlanes, SmlalSums<3, 1, 0, 2>>::Run(tile, x, count, sums);
      default:
        return NeonProduct<Neon, kPlanes, SmlalSums<4, 1, 0, 2>>::Run(tile, x, count, sums);
    }
  }
};

}  // namespace

const LutMatMulKernels kLutMatMulNeon = LutMatMulNeon<Neon, SmlalProduct>::Kernels();

}  // namespace edgecomp
