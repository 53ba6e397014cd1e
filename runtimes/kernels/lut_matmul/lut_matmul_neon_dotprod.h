// The int8 product by SDOT, for the variants that have it.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_

#include "kernels/lut_matmul/lut_matmul_neon.h"

namespace edgecomp {

// The plane in the registers p0 to p3: low nibbles times lane `low` of q, high nibbles times lane `high`.
#define EC_ADD_PLANE(p0, p1, p2, p3, low, high) \
  "and v20.16b, v" p0                           \
  ".16b, %[mask].16b\n"                         \
  "and v21.16b, v" p1                           \
  ".16b, %[mask].16b\n"                         \
  "and v22.16b, v" p2                           \
  ".16b, %[mask].16b\n"                         \
  "and v23.16b, v" p3                           \
  ".16b, %[mask].16b\n"                         \
  "ushr v" p0 ".16b, v" p0                      \
  ".16b, #4\n"                                  \
  "ushr v" p1 ".16b, v" p1                      \
  ".16b, #4\n"                                  \
  "ushr v" p2 ".16b, v" p2                      \
  ".16b, #4\n"                                  \
  "ushr v" p3 ".16b, v" p3                      \
  ".16b, #4\n"                                  \
  "tbl v20.16b, {%[table].16b}, v20.16b\n"      \
  "tbl v21.16b, {%[table].16b}, v21.16b\n"      \
  "tbl v22.16b, {%[table].16b}, v22.16b\n"      \
  "tbl v23.16b, {%[table].16b}, v23.16b\n"      \
  "tbl v" p0 ".16b, {%[table].16b}, v" p0       \
  ".16b\n"                                      \
  "tbl v" p1 ".16b, {%[table].16b}, v" p1       \
  ".16b\n"                                      \
  "tbl v" p2 ".16b, {%[table].16b}, v" p2       \
  ".16b\n"                                      \
  "tbl v" p3 ".16b, {%[table].16b}, v" p3       \
  ".16b\n"                                      \
  "sdot %[s0].4s, v20.16b, %[q].4b[" low        \
  "]\n"                                         \
  "sdot %[s1].4s, v21.16b, %[q].4b[" low        \
  "]\n"                                         \
  "sdot %[s2].4s, v22.16b, %[q].4b[" low        \
  "]\n"                                         \
  "sdot %[s3].4s, v23.16b, %[q].4b[" low        \
  "]\n"                                         \
  "sdot %[s0].4s, v" p0 ".16b, %[q].4b[" high   \
  "]\n"                                         \
  "sdot %[s1].4s, v" p1 ".16b, %[q].4b[" high   \
  "]\n"                                         \
  "sdot %[s2].4s, v" p2 ".16b, %[q].4b[" high   \
  "]\n"                                         \
  "sdot %[s3].4s, v" p3 ".16b, %[q].4b[" high "]\n"

// Each 32-bit lane adds up the columns of one row.
template <int kRowsOfX, int kPartsAtOnce, int kSpansOfBlock>
class SdotSums {
 public:
  static constexpr int kCount = kRowsOfX;
  static constexpr int kUsedParts = kPartsAtOnce;
  static constexpr int kSpans = kSpansOfBlock;
  static constexpr bool kAddsNibbles = kCount == 1;
  static constexpr bool kPairsSpans = kCount == 1;

  EC_INLINE void StartBlock() {
    for (int m = 0; m < kCount; ++m) {
      for (int part = 0; part < kUsedParts; ++part) __asm__ volatile("movi %0.4s, #0" : "=w"(sum_[m][part]));
    }
  }
  EC_INLINE void StartSpan(const int8_t* q, int64_t columns) {
    for (int m = 0; m < kCount; ++m) q_[m] = vld1q_s8_x2(q + m * columns);
  }
  template <class Span>
  EC_INLINE void StartSpanOfPair(Span span, const int8_t*& q) {
    if constexpr (span % 2 == 0) {
      const int8x16x4_t pair = vld1q_s8_x4(q);
      q += 2 * kSpanColumns;
      HideOrigin(q);
      q_[0] = {{pair.val[0], pair.val[1]}};
      next_ = {{pair.val[2], pair.val[3]}};
    } else {
      q_[0] = next_;
    }
  }
  template <class Group, class Part>
  EC_INLINE void Add(Group group, Part part, int8x16_t weights) {
    for (int m = 0; m < kCount; ++m) {
      sum_[m][part] = vdotq_laneq_s32(sum_[m][part], weights, q_[m].val[group / 4], group % 4);
    }
  }
  EC_INLINE void AddNibbles(const uint8_t*& codes, int8x16_t table) {
    static_assert(kCount == 1 && kUsedParts == 4, "the parts of a plane");
    AddTwoPlanes(codes, table, q_[0].val[0]);
    AddTwoPlanes(codes, table, q_[0].val[1]);
  }
  EC_INLINE int32x4_t Sum(int m, int part) const { return sum_[m][part]; }

 private:
  // 16 columns of 4 bits. The one loop in assembly: from intrinsics the compiler spends 2 to 4 % more instructions, on copies to
  // and from the consecutive registers that ld1 demands.
  EC_INLINE void AddTwoPlanes(const uint8_t*& codes, int8x16_t table, int8x16_t q) {
    const auto& planes = *reinterpret_cast<const uint8_t (*)[2 * kPlaneBytes]>(codes);
    __asm__(
        "ld1 {v16.16b-v19.16b}, [%[codes]], #64\n"
        "ld1 {v24.16b-v27.16b}, [%[codes]], #64\n" EC_ADD_PLANE("16", "17", "18", "19", "0", "1")
            EC_ADD_PLANE("24", "25", "26", "27", "2", "3")
        : [codes] "+r"(codes), [s0] "+w"(sum_[0][0]), [s1] "+w"(sum_[0][1]), [s2] "+w"(sum_[0][2]), [s3] "+w"(sum_[0][3])
        : "m"(planes), [table] "w"(table), [q] "w"(q), [mask] "w"(vdupq_n_u8(0x0f))
        : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27");
  }

  int32x4_t sum_[kCount][kUsedParts];
  int8x16x2_t q_[kCount];
  int8x16x2_t next_;  // of the second span of a pair
};

template <class Tag>
struct SdotProduct {
  template <int kPlanes>
  static void Direct(const LutTile& tile, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
    static_assert(kMostDirectRows == 4, "one case a number of rows");
    if (rows == 1) {
      if (count.spans_per_block == 1) return NeonProduct<Tag, kPlanes, SdotSums<1, 4, 1>>::Run(tile, x, count, sums);
      if (count.spans_per_block == 4) return NeonProduct<Tag, kPlanes, SdotSums<1, 4, 4>>::Run(tile, x, count, sums);
      return NeonProduct<Tag, kPlanes, SdotSums<1, 4, 0>>::Run(tile, x, count, sums);
    }
    switch (rows) {
      case 2:
        return NeonProduct<Tag, kPlanes, SdotSums<2, 2, 0>>::Run(tile, x, count, sums);
      case 3:
        return NeonProduct<Tag, kPlanes, SdotSums<3, 2, 0>>::Run(tile, x, count, sums);
      default:
        return NeonProduct<Tag, kPlanes, SdotSums<4, 2, 0>>::Run(tile, x, count, sums);
    }
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_NEON_DOTPROD_H_
