// Vectors of floats as wide as the file's instruction set has them: 16, 8 or 4 lanes. Written with the compilers' vector types, so
// that one source serves every processor; each including file is compiled with its own flags and names its own namespace.
#ifndef EDGECOMP_FITTING_SIMD_H_
#define EDGECOMP_FITTING_SIMD_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace edgecomp::fitting::FITTING_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

inline Floats Load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void Store(float* to, Floats v) { std::memcpy(to, &v, sizeof(v)); }

inline Floats Broadcast(float value) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(value);
#elif defined(__AVX2__)
  return _mm256_set1_ps(value);
#elif defined(__aarch64__)
  return vdupq_n_f32(value);
#else
  return Floats{value, value, value, value};
#endif
}

inline Floats Abs(Floats v) { return reinterpret_cast<Floats>(reinterpret_cast<Ints>(v) & 0x7fffffff); }

// The second of two equal ones, or of two of which one is no number.
inline Floats Min(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}

inline Floats Max(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// Rounded to the nearest integer, halves to even, of values within int32.
inline Ints RoundToInt(Floats v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Ints>(_mm512_cvtps_epi32(v));
#elif defined(__AVX2__)
  return reinterpret_cast<Ints>(_mm256_cvtps_epi32(v));
#elif defined(__aarch64__)
  return vcvtnq_s32_f32(v);
#else
  Ints rounded;
  for (int i = 0; i < kLanes; ++i) rounded[i] = static_cast<int32_t>(std::nearbyintf(v[i]));
  return rounded;
#endif
}

inline Floats ToFloats(Ints v) { return __builtin_convertvector(v, Floats); }

// The least integer that is not below v, of values within int32.
inline Ints CeilToInt(Floats v) {
#if defined(__AVX512F__)
  return reinterpret_cast<Ints>(_mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
#else
  const Ints truncated = __builtin_convertvector(v, Ints);
  return truncated - (ToFloats(truncated) < v);  // a comparison that holds is -1
#endif
}

// a * b + c, rounded once where the instruction set can.
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

inline Floats Gather(const float* table, Ints index) {
#if defined(__AVX512F__)
  return _mm512_i32gather_ps(reinterpret_cast<__m512i>(index), table, 4);
#elif defined(__AVX2__)
  return _mm256_i32gather_ps(table, reinterpret_cast<__m256i>(index), 4);
#else
  Floats v;
  for (int i = 0; i < kLanes; ++i) v[i] = table[index[i]];
  return v;
#endif
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_SIMD_H_
