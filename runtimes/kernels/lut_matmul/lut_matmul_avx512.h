// What the AVX-512 variants share: the 16 rows of a tile are the 16 lanes of a vector. How codes are looked up is theirs.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_H_

#include <immintrin.h>

#include "kernels/lut_matmul/lut_matmul_simd.h"

namespace edgecomp {

template <class Tag>
struct Avx512 {
  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  using Activations = __m512i;
  static constexpr int kRows = 16;
  // Of the 32 registers 12 take int and 12 float sums, or 8 float sums and 4 columns of weights.
  static constexpr int kInt8RowsAtOnce = 12;
  static constexpr int kInt8PartsAtOnce = 1;
  static constexpr int kInt8GroupsAtOnce = 1;
  static constexpr int kFloatRowsAtOnce = 8;

  // vpdpbusd multiplies unsigned by signed bytes. The weights take the unsigned side, with an offset of 128.
  static constexpr uint8_t kOffset = 128;
  static constexpr int kDotChains = 2;
  static Bytes Broadcast4(const int8_t* q) {
    int32_t four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm512_set1_epi32(four);
  }
  static Bytes ToWeights(Bytes bytes) { return bytes; }
  static Activations ToActivations(Bytes q) { return q; }
  static Ints Dot(Ints sum, Bytes weights, Bytes q) {
    sum = _mm512_dpbusd_epi32(sum, weights, q);
    asm("" : "+v"(sum));  // GCC would copy each sum before and after
    return sum;
  }
  static Bytes CodesToWeights(Bytes codes) { return codes; }

  static Bytes Load(const uint8_t* bytes) { return _mm512_loadu_si512(bytes); }
  static void Store(uint8_t* to, Bytes bytes) { _mm512_storeu_si512(to, bytes); }
  static Bytes LoadTable(const int8_t* table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  static Bytes SetBytes(uint8_t byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
  static Bytes AddBytes(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
  static Bytes Select(Bytes mask, Bytes if_1, Bytes if_0) { return _mm512_ternarylogic_epi32(mask, if_1, if_0, 0xca); }
  // By 16-bit lanes.
  template <int kBits>
  static Bytes ShiftRight(Bytes bytes) {
    return _mm512_srli_epi16(bytes, kBits);
  }

  static Ints SetInts(int32_t value) { return _mm512_set1_epi32(value); }
  template <int kBits>
  static Ints ShiftLeft(Ints ints) {
    return _mm512_slli_epi32(ints, kBits);
  }
  static Ints ZeroInts() { return _mm512_setzero_si512(); }
  static Ints Add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints MaxMagnitudes(Ints most, const float* x) {
    return _mm512_max_epi32(most, _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(0x7fffffff)));
  }
  static int32_t LargestLane(Ints lanes) { return _mm512_reduce_max_epi32(lanes); }
  static int32_t SumOfLanes(Ints lanes) { return _mm512_reduce_add_epi32(lanes); }
  // 32 values; returns lanes whose sum is the sum of q.
  static Ints QuantizeSpan(const float* x, float inverse, int8_t* q) {
    const Floats scale = _mm512_set1_ps(inverse);
    const Ints a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), scale));
    const Ints b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), scale));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16), _mm512_cvtepi32_epi8(b));
    return Add(a, b);
  }

  static Floats ZeroFloats() { return _mm512_setzero_ps(); }
  static Floats Add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static Floats LoadFloats(const float* from) { return _mm512_loadu_ps(from); }
  static void Store(float* to, Floats floats) { _mm512_storeu_ps(to, floats); }
  static Floats ToFloats(Ints ints) { return _mm512_cvtepi32_ps(ints); }
  static Floats Scales(const int8_t* scales) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales))));
  }
  static Floats AddScaled(Floats total, Floats sum, Floats scales, float step) {
    return _mm512_fmadd_ps(sum, _mm512_mul_ps(scales, _mm512_set1_ps(step)), total);
  }
  static Floats AddScaled(Floats total, Floats sum, const int8_t* scales, float step) {
    return AddScaled(total, sum, Scales(scales), step);
  }
  template <int kByte>
  static Floats ByteToFloats(Bytes bytes) {
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(bytes, 24 - 8 * kByte), 24));
  }
  static Floats MultiplyAdd(Floats weights, float x, Floats sum) { return _mm512_fmadd_ps(weights, _mm512_set1_ps(x), sum); }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_H_
