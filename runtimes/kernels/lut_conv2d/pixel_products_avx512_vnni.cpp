// AVX-512 with VNNI: vpdpbusd multiplies unsigned pixels by signed weights, which come from memory to all lanes.
#include <immintrin.h>

#include "kernels/lut_conv2d/pixel_products_simd.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsAvx512Vnni;

namespace {

struct Avx512 {
  using Bytes = __m512i;
  using Ints = __m512i;
  using Sums = __m512i;
  using Operand = __m512i;
  using Four = const uint8_t*;
  static constexpr int32_t kByteOffset = 0;
  // Of the 32 registers 24 are sums, 3 pixels and one weights.
  static constexpr int kRowsAtOnce = 8, kVectorsAtOnce = 3, kGroupsAtOnce = 1;

  static Bytes Load(const uint8_t* from) { return _mm512_loadu_si512(from); }
  static Operand ToOperand(Bytes bytes) { return bytes; }
  static Four LoadFour(const uint8_t* from) { return from; }
  template <int kRow>
  static __m512i Row(Four four) {
    int32_t weights;
    __builtin_memcpy(&weights, four + kRow * kQuadBytes, sizeof(weights));
    return _mm512_set1_epi32(weights);
  }
  static Sums Start(int32_t start) { return _mm512_set1_epi32(start); }
  static Sums Dot(Sums sum, Operand x, __m512i weights) {
    sum = _mm512_dpbusd_epi32(sum, x, weights);
    asm("" : "+v"(sum));  // GCC would copy each sum before and after
    return sum;
  }
  static __m512 ToFloats(Sums sums) { return _mm512_cvtepi32_ps(sums); }
  static Ints SumOfFours(Ints sum, Bytes bytes) { return _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), bytes); }

  static Ints SetInts(int32_t value) { return _mm512_set1_epi32(value); }
  static Ints Or(Ints a, Ints b) { return _mm512_or_si512(a, b); }
  static Ints Add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints Xor(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
  template <int kBits>
  static Ints Shifted(Ints ints) {
    return _mm512_slli_epi32(ints, kBits);
  }
  static void Store(uint8_t* to, Ints ints) { _mm512_storeu_si512(to, ints); }
  static __mmask16 First(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
  static __m512 LoadFirst(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(First(count), from); }
  static void StoreFirst(uint8_t* to, Ints ints, int64_t count) { _mm512_mask_storeu_epi32(to, First(count), ints); }
  static Ints Quantized(__m512 x, __m512 inverse, Ints zero) {
    const Ints q = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)), zero);
    return _mm512_min_epi32(q, _mm512_set1_epi32(255));
  }
};

}  // namespace

const PixelProductsKernels kPixelProductsAvx512Vnni = PixelProducts<Avx512>::Kernels();

}  // namespace edgecomp
