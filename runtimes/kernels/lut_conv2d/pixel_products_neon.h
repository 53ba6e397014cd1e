// What the NEON variants share; how bytes are multiplied is theirs. Both sides are signed: an image's bytes are less by 128.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_NEON_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_NEON_H_

#include <arm_neon.h>

#include "kernels/lut_conv2d/pixel_products_simd.h"

namespace edgecomp {

// `Tag` as in unroll.h.
template <class Tag>
struct PixelsNeon {
  using Bytes = int8x16_t;
  using Ints = int32x4_t;
  using Operand = int8x16_t;
  using Four = int8x16_t;  // of four rows, one a lane of 32 bits
  static constexpr int32_t kByteOffset = 128;

  static Bytes Load(const uint8_t* from) { return vreinterpretq_s8_u8(vld1q_u8(from)); }
  static Operand ToOperand(Bytes bytes) { return bytes; }
  static Four LoadFour(const uint8_t* from) { return Load(from); }

  static Ints SetInts(int32_t value) { return vdupq_n_s32(value); }
  static Ints Or(Ints a, Ints b) { return vorrq_s32(a, b); }
  static Ints Add(Ints a, Ints b) { return vaddq_s32(a, b); }
  static Ints Xor(Ints a, Ints b) { return veorq_s32(a, b); }
  template <int kBits>
  static Ints Shifted(Ints ints) {
    return vshlq_n_s32(ints, kBits);
  }
  static void Store(uint8_t* to, Ints ints) { vst1q_u8(to, vreinterpretq_u8_s32(ints)); }
  static float32x4_t LoadFirst(const float* from, int64_t count) {
    float values[4] = {};
    std::memcpy(values, from, static_cast<size_t>(count) * sizeof(float));
    return vld1q_f32(values);
  }
  static void StoreFirst(uint8_t* to, Ints ints, int64_t count) {
    uint8_t bytes[16];
    Store(bytes, ints);
    std::memcpy(to, bytes, static_cast<size_t>(count) * kQuadBytes);
  }
  static Ints Quantized(float32x4_t x, float32x4_t inverse, Ints zero) {
    return vminq_s32(vaddq_s32(vcvtnq_s32_f32(vmulq_f32(x, inverse)), zero), vdupq_n_s32(255));
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_NEON_H_
