// Plain NEON: products of bytes in 16 bits, of which two add up there (2 * 128 * 127 = 32512); two groups of columns share what it
// takes to widen their sums.
#include "kernels/lut_conv2d/pixel_products_neon.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsNeon;

namespace {

struct Neon : PixelsNeon<Neon> {
  // Of the first two pixels and of the last two, each as two sums that are added up in the end.
  struct Sums {
    int32x4_t low, high;
  };
  // Of the 32 registers 16 are sums, 4 pixels and 8 weights.
  static constexpr int kRowsAtOnce = 4, kVectorsAtOnce = 2, kGroupsAtOnce = 2;

  template <int kRow>
  static int8x16_t Row(Four four) {
    return vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(four), kRow));
  }
  // A pixel's two sums: the start and 0.
  static Sums Start(int32_t start) {
    const int32x4_t starts = {start, 0, start, 0};
    return {starts, starts};
  }
  static Sums Dot(Sums sum, Operand x, int8x16_t w) {
    return {vpadalq_s16(sum.low, vmull_s8(vget_low_s8(x), vget_low_s8(w))), vpadalq_s16(sum.high, vmull_high_s8(x, w))};
  }
  static Sums DotOfPair(Sums sum, Operand x0, int8x16_t w0, Operand x1, int8x16_t w1) {
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(x0), vget_low_s8(w0)), vget_low_s8(x1), vget_low_s8(w1));
    const int16x8_t high = vmlal_high_s8(vmull_high_s8(x0, w0), x1, w1);
    return {vpadalq_s16(sum.low, low), vpadalq_s16(sum.high, high)};
  }
  static float32x4_t ToFloats(Sums sums) { return vcvtq_f32_s32(vpaddq_s32(sums.low, sums.high)); }
  static Ints SumOfFours(Ints sum, Bytes bytes) { return vpadalq_s16(sum, vpaddlq_s8(bytes)); }
};

}  // namespace

const PixelProductsKernels kPixelProductsNeon = PixelProducts<Neon>::Kernels();

}  // namespace edgecomp
