// What the variants with vectors of 256 bits share; how bytes are multiplied is theirs.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_AVX256_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_AVX256_H_

#include <immintrin.h>

#include "kernels/lut_conv2d/pixel_products_simd.h"

namespace edgecomp {

// `Tag` as in unroll.h.
template <class Tag>
struct PixelsAvx256 {
  using Bytes = __m256i;
  using Ints = __m256i;
  using Sums = __m256i;
  using Four = const uint8_t*;
  static constexpr int32_t kByteOffset = 0;

  static Bytes Load(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
  static Four LoadFour(const uint8_t* from) { return from; }
  template <int kRow>
  static __m256i Row(Four four) {
    int32_t weights;
    __builtin_memcpy(&weights, four + kRow * kQuadBytes, sizeof(weights));
    return _mm256_set1_epi32(weights);
  }
  static Sums Start(int32_t start) { return _mm256_set1_epi32(start); }
  static __m256 ToFloats(Sums sums) { return _mm256_cvtepi32_ps(sums); }
  static Ints SumOfFours(Ints sum, Bytes bytes) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  static Ints SetInts(int32_t value) { return _mm256_set1_epi32(value); }
  static Ints Or(Ints a, Ints b) { return _mm256_or_si256(a, b); }
  static Ints Add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints Xor(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
  template <int kBits>
  static Ints Shifted(Ints ints) {
    return _mm256_slli_epi32(ints, kBits);
  }
  static void Store(uint8_t* to, Ints ints) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), ints); }
  static __m256i First(int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m256 LoadFirst(const float* from, int64_t count) { return _mm256_maskload_ps(from, First(count)); }
  static void StoreFirst(uint8_t* to, Ints ints, int64_t count) {
    _mm256_maskstore_epi32(reinterpret_cast<int32_t*>(to), First(count), ints);
  }
  static Ints Quantized(__m256 x, __m256 inverse, Ints zero) {
    const Ints q = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)), zero);
    return _mm256_min_epi32(q, _mm256_set1_epi32(255));
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_AVX256_H_
