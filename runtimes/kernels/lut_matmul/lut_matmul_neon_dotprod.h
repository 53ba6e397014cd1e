// The int8 product by SDOT, for the variants that have it.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_

#include "kernels/lut_matmul/lut_matmul_neon.h"

namespace edgecomp {

// Each 32-bit lane adds up the columns of one row.
template <int kRowsOfX, int kPartsAtOnce, bool kSpanIsBlock>
class SdotSums {
 public:
  static constexpr int kCount = kRowsOfX;
  static constexpr int kUsedParts = kPartsAtOnce;
  static constexpr bool kOneSpan = kSpanIsBlock;

  EC_INLINE void Clear() {
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) sum_[m][part] = vdupq_n_s32(0);
    }
  }
  EC_INLINE void StartSpan(const int8_t* q, int64_t columns) {
    if constexpr (kOneSpan) Clear();
    for (int m = 0; m < kCount; ++m) q_[m] = vld1q_s8_x2(q + m * columns);
  }
  template <class Group, class Part>
  EC_INLINE void Add(Group group, Part part, int8x16_t weights) {
    for (int m = 0; m < kCount; ++m) {
      sum_[m][part] = vdotq_laneq_s32(sum_[m][part], weights, q_[m].val[group / 4], group % 4);
    }
  }
  EC_INLINE int32x4_t Sum(int m, int part) const { return sum_[m][part]; }

 private:
  int32x4_t sum_[kCount][kUsedParts];
  int8x16x2_t q_[kCount];
};

template <class Tag>
struct SdotProduct {
  template <int kPlanes>
  static void Direct(const LutTile& tile, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
    static_assert(kMostDirectRows == 4, "one case a number of rows");
    switch (rows) {
      case 1:
        return count.spans_per_block == 1 ? NeonMultiply<Tag, kPlanes, SdotSums<1, 4, true>>(tile, x, count, sums)
                                          : NeonMultiply<Tag, kPlanes, SdotSums<1, 4, false>>(tile, x, count, sums);
      case 2:
        return NeonMultiply<Tag, kPlanes, SdotSums<2, 2, false>>(tile, x, count, sums);
      case 3:
        return NeonMultiply<Tag, kPlanes, SdotSums<3, 2, false>>(tile, x, count, sums);
      default:
        return NeonMultiply<Tag, kPlanes, SdotSums<4, 2, false>>(tile, x, count, sums);
    }
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_
