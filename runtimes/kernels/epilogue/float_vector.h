// Vectors of floats as the instruction set of the including file has them, or one float: what epilogues are written in. Products
// are added up by fused multiply-adds in every one, so that all give the same bits.
#ifndef EDGECOMP_KERNELS_EPILOGUE_FLOAT_VECTOR_H_
#define EDGECOMP_KERNELS_EPILOGUE_FLOAT_VECTOR_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels/lut_matmul/unroll.h"

namespace edgecomp {

// `Tag` as in unroll.h. Operators + - * / are the language's own.
//   MultiplyAdd(a, b, c)  a * b + c, rounded once
//   AtLeast, AtMost       v < bound ? bound : v, and v > bound ? bound : v: a NaN stays
//   TimesPowerOf2(v, n)   v * 2**n, for an n in the low bits of `shifted`, where the result is no denormal
#if defined(__AVX512F__)

template <class Tag>
struct FloatVector {
  using Floats = __m512;
  static constexpr int kLanes = 16;
  static EC_INLINE Floats Load(const float* from) { return _mm512_loadu_ps(from); }
  static EC_INLINE void Store(float* to, Floats v) { _mm512_storeu_ps(to, v); }
  static EC_INLINE Floats Set(float v) { return _mm512_set1_ps(v); }
  static EC_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static EC_INLINE Floats AtLeast(Floats v, Floats bound) { return _mm512_max_ps(bound, v); }  // the second one where one is NaN
  static EC_INLINE Floats AtMost(Floats v, Floats bound) { return _mm512_min_ps(bound, v); }
  static EC_INLINE Floats TimesPowerOf2(Floats v, Floats shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
  }
};

#elif defined(__AVX2__) && defined(__FMA__)

template <class Tag>
struct FloatVector {
  using Floats = __m256;
  static constexpr int kLanes = 8;
  static EC_INLINE Floats Load(const float* from) { return _mm256_loadu_ps(from); }
  static EC_INLINE void Store(float* to, Floats v) { _mm256_storeu_ps(to, v); }
  static EC_INLINE Floats Set(float v) { return _mm256_set1_ps(v); }
  static EC_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
  static EC_INLINE Floats AtLeast(Floats v, Floats bound) { return _mm256_max_ps(bound, v); }  // the second one where one is NaN
  static EC_INLINE Floats AtMost(Floats v, Floats bound) { return _mm256_min_ps(bound, v); }
  static EC_INLINE Floats TimesPowerOf2(Floats v, Floats shifted) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
  }
};

#elif defined(__aarch64__)

template <class Tag>
struct FloatVector {
  using Floats = float32x4_t;
  static constexpr int kLanes = 4;
  static EC_INLINE Floats Load(const float* from) { return vld1q_f32(from); }
  static EC_INLINE void Store(float* to, Floats v) { vst1q_f32(to, v); }
  static EC_INLINE Floats Set(float v) { return vdupq_n_f32(v); }
  static EC_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
  // Its maximum takes 0 for more than -0.
  static EC_INLINE Floats AtLeast(Floats v, Floats bound) { return vbslq_f32(vcltq_f32(v, bound), bound, v); }
  static EC_INLINE Floats AtMost(Floats v, Floats bound) { return vbslq_f32(vcgtq_f32(v, bound), bound, v); }
  static EC_INLINE Floats TimesPowerOf2(Floats v, Floats shifted) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(v), vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23)));
  }
};

#else

template <class Tag>
struct FloatVector {
  using Floats = float;
  static constexpr int kLanes = 1;
  static EC_INLINE Floats Load(const float* from) { return *from; }
  static EC_INLINE void Store(float* to, Floats v) { *to = v; }
  static EC_INLINE Floats Set(float v) { return v; }
  static EC_INLINE Floats MultiplyAdd(Floats a, Floats b, Floats c) { return std::fma(a, b, c); }
  static EC_INLINE Floats AtLeast(Floats v, Floats bound) { return v < bound ? bound : v; }
  static EC_INLINE Floats AtMost(Floats v, Floats bound) { return v > bound ? bound : v; }
  static EC_INLINE Floats TimesPowerOf2(Floats v, Floats shifted) {
    uint32_t bits, exponent;
    std::memcpy(&bits, &v, sizeof(bits));
    std::memcpy(&exponent, &shifted, sizeof(exponent));
    bits += exponent << 23;
    std::memcpy(&v, &bits, sizeof(v));
    return v;
  }
};

#endif

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_EPILOGUE_FLOAT_VECTOR_H_
