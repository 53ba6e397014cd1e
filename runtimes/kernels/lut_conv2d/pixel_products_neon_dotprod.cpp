// NEON with SDOT, whose second factor is a lane of a vector: a row's four bytes are in no register of their own.
#include "kernels/lut_conv2d/pixel_products_neon.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsNeonDotprod;

namespace {

struct Dotprod : PixelsNeon<Dotprod> {
  using Sums = int32x4_t;
  template <int kRow>
  struct Lane {
    int8x16_t four;
  };
  // Of the 32 registers 24 are sums, 3 pixels and two weights.
  static constexpr int kRowsAtOnce = 8, kVectorsAtOnce = 3, kGroupsAtOnce = 1;

  template <int kRow>
  static Lane<kRow> Row(Four four) {
    return {four};
  }
  static Sums Start(int32_t start) { return vdupq_n_s32(start); }
  template <int kRow>
  static Sums Dot(Sums sum, Operand x, Lane<kRow> row) {
    return vdotq_laneq_s32(sum, x, row.four, kRow);
  }
  static float32x4_t ToFloats(Sums sums) { return vcvtq_f32_s32(sums); }
  static Ints SumOfFours(Ints sum, Bytes bytes) { return vdotq_s32(sum, bytes, vdupq_n_s8(1)); }
};

}  // namespace

const PixelProductsKernels kPixelProductsNeonDotprod = PixelProducts<Dotprod>::Kernels();

}  // namespace edgecomp
