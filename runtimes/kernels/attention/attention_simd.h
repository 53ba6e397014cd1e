// The inner loops of attention for the vectors of the including file (float_vector.h). `Tag` as in unroll.h.
#ifndef EDGECOMP_KERNELS_ATTENTION_ATTENTION_SIMD_H_
#define EDGECOMP_KERNELS_ATTENTION_ATTENTION_SIMD_H_

#include <cmath>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/epilogue/activation.h"
#include "kernels/epilogue/float_vector.h"

namespace edgecomp {

// Kinds of values that a vector is made of. A row's last values may be fewer than a vector: they are copied.
template <class Tag>
struct CacheVector {
  using V = FloatVector<Tag>;
  using Floats = typename V::Floats;
#if defined(__AVX512F__)
  static EC_INLINE Floats OfHalf(const uint16_t* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static EC_INLINE void ToHalf(Floats v, uint16_t* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static EC_INLINE Floats OfInt8(const int8_t* from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
  }
  static EC_INLINE void Sums(const Floats (&v)[4], float* to) {
    __m256 halves[4];
    for (int i = 0; i < 4; ++i) {
      halves[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v[i]), 1)));
    }
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(halves[0], halves[1]), _mm256_hadd_ps(halves[2], halves[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
  }
#elif defined(__AVX2__) && defined(__FMA__)
  static EC_INLINE Floats OfHalf(const uint16_t* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static EC_INLINE void ToHalf(Floats v, uint16_t* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static EC_INLINE Floats OfInt8(const int8_t* from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
  }
  static EC_INLINE void Sums(const Floats (&v)[4], float* to) {
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
  }
#elif defined(__aarch64__)
  static EC_INLINE Floats OfHalf(const uint16_t* from) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from))); }
  static EC_INLINE void ToHalf(Floats v, uint16_t* to) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
  static EC_INLINE Floats OfInt8(const int8_t* from) {
    int32_t four;
    std::memcpy(&four, from, sizeof(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
  }
  static EC_INLINE void Sums(const Floats (&v)[4], float* to) {
    vst1q_f32(to, vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])));
  }
#else
  static EC_INLINE Floats OfHalf(const uint16_t* from) { return FloatOfHalf(*from); }
  static EC_INLINE void ToHalf(Floats v, uint16_t* to) { *to = HalfOfFloat(v); }
  static EC_INLINE Floats OfInt8(const int8_t* from) { return *from; }
  static EC_INLINE void Sums(const Floats (&v)[4], float* to) {
    for (int i = 0; i < 4; ++i) to[i] = v[i];
  }
#endif
};

// What rows of a cache are made of: Load gives a vector of values from the i-th on.
template <class Tag>
struct FloatRows {
  static EC_INLINE typename FloatVector<Tag>::Floats Load(const void* row, int64_t i) {
    return FloatVector<Tag>::Load(static_cast<const float*>(row) + i);
  }
};
template <class Tag>
struct HalfRows {
  static EC_INLINE typename FloatVector<Tag>::Floats Load(const void* row, int64_t i) {
    return CacheVector<Tag>::OfHalf(static_cast<const uint16_t*>(row) + i);
  }
};
template <class Tag>
struct Int8Rows {
  static EC_INLINE typename FloatVector<Tag>::Floats Load(const void* row, int64_t i) {
    return CacheVector<Tag>::OfInt8(static_cast<const int8_t*>(row) + i);
  }
};

template <class Tag>
class AttentionLoops {
  using V = FloatVector<Tag>;
  using C = CacheVector<Tag>;
  using Floats = typename V::Floats;
  static constexpr int64_t kLanes = V::kLanes;
  static_assert(kRowMultiple % kLanes == 0 && kChunk % kRowMultiple == 0);

 public:
  static void EncodeHalf(const float* values, int64_t count, uint16_t* to) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) C::ToHalf(V::Load(values + i), to + i);
    for (; i < count; ++i) to[i] = HalfOfFloat(values[i]);
  }

  static void DecodeHalf(const uint16_t* row, int64_t size, float* to) {
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) V::Store(to + i, C::OfHalf(row + i));
    for (; i < size; ++i) to[i] = FloatOfHalf(row[i]);
    Pad(i, to);
  }

  static void DecodeInt8(const int8_t* row, int64_t size, float scale, float* to) {
    const Floats scales = V::Set(scale);
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) V::Store(to + i, C::OfInt8(row + i) * scales);
    for (; i < size; ++i) to[i] = static_cast<float>(row[i]) * scale;
    Pad(i, to);
  }

  template <class Rows>
  static void Scores(const float* queries, int64_t rows, const void* keys, int64_t bytes, int64_t places, int64_t size,
                     float* scores) {
    for (int64_t j = 0; j < places; j += 4) {
      const char* four[4];  // the last place again behind the last: its scores lie in the row's padding
      for (int64_t i = 0; i < 4; ++i) four[i] = static_cast<const char*>(keys) + (j + i < places ? j + i : places - 1) * bytes;
      switch (rows) {
        case 1:
          ScoresOf<1, Rows>(queries, four, size, scores + j);
          break;
        case 2:
          ScoresOf<2, Rows>(queries, four, size, scores + j);
          break;
        case 3:
          ScoresOf<3, Rows>(queries, four, size, scores + j);
          break;
        default:
          ScoresOf<4, Rows>(queries, four, size, scores + j);
      }
    }
  }

  static float Largest(const float* scores, int64_t first, int64_t last) {
    float largest = -std::numeric_limits<float>::infinity(), check = 0;
    int64_t j = first;
    if (last - first >= kLanes) {
      Floats most = V::Load(scores + j), not_finite = most * V::Set(0.0f);
      for (j += kLanes; j + kLanes <= last; j += kLanes) {
        const Floats v = V::Load(scores + j);
        most = V::AtLeast(v, most);
        not_finite = V::MultiplyAdd(v, V::Set(0.0f), not_finite);
      }
      float each[kLanes], wrong[kLanes];
      V::Store(each, most);
      V::Store(wrong, not_finite);
      for (int64_t i = 0; i < kLanes; ++i) {
        largest = each[i] > largest ? each[i] : largest;
        check += wrong[i];
      }
    }
    for (; j < last; ++j) {
      largest = scores[j] > largest ? scores[j] : largest;
      check += scores[j] * 0.0f;
    }
    return largest + check;
  }

  static float Weights(float* scores, int64_t first, int64_t last, int64_t places, float shift) {
    const Floats minus = V::Set(-shift);
    // Whole vectors: others' values do no harm, and are made 0.
    for (int64_t j = first / kLanes * kLanes; j < last; j += kLanes) {
      V::Store(scores + j, Exponential<Tag>(V::Load(scores + j) + minus));
    }
    for (int64_t j = 0; j < first; ++j) scores[j] = 0;
    for (int64_t j = last; j < (places + kLanes - 1) / kLanes * kLanes; ++j) scores[j] = 0;
    Floats sums = V::Set(0.0f);
    for (int64_t j = first / kLanes * kLanes; j < last; j += kLanes) sums = sums + V::Load(scores + j);
    float each[kLanes], sum = 0;
    V::Store(each, sums);
    for (int64_t i = 0; i < kLanes; ++i) sum += each[i];
    return sum;
  }

  template <class Rows>
  static void Mix(const float* weights, int64_t rows, const void* values, int64_t bytes, int64_t places, int64_t size,
                  float* sums) {
    switch (rows) {
      case 1:
        return MixRows<1, Rows>(weights, values, bytes, places, size, sums);
      case 2:
        return MixRows<2, Rows>(weights, values, bytes, places, size, sums);
      case 3:
        return MixRows<3, Rows>(weights, values, bytes, places, size, sums);
      default:
        return MixRows<4, Rows>(weights, values, bytes, places, size, sums);
    }
  }

 private:
  static EC_INLINE void Pad(int64_t i, float* to) {
    for (; i % kRowMultiple != 0; ++i) to[i] = 0;
  }

  template <int kRows, class Rows>
  static EC_INLINE void ScoresOf(const float* queries, const char* const (&keys)[4], int64_t size, float* scores) {
    Floats sums[kRows][4];
    for (auto& row : sums) {
      for (Floats& sum : row) sum = V::Set(0.0f);
    }
    for (int64_t i = 0; i < size; i += kLanes) {
      Floats q[kRows];
      for (int r = 0; r < kRows; ++r) q[r] = V::Load(queries + r * size + i);
      for (int p = 0; p < 4; ++p) {
        const Floats k = Rows::Load(keys[p], i);
        for (int r = 0; r < kRows; ++r) sums[r][p] = V::MultiplyAdd(q[r], k, sums[r][p]);
      }
    }
    for (int r = 0; r < kRows; ++r) C::Sums(sums[r], scores + r * kChunk);
  }

  template <int kRows, class Rows>
  static void MixRows(const float* weights, const void* values, int64_t bytes, int64_t places, int64_t size, float* sums) {
    // As many sums as registers hold.
    constexpr int kVectors = kRows <= 2 || kLanes != 8 ? 4 : 2;
    int64_t i = 0;
    for (; i + kVectors * kLanes <= size; i += kVectors * kLanes)
      MixOf<kRows, kVectors, Rows>(weights, values, bytes, places, size, i, sums);
    for (; i < size; i += kLanes) MixOf<kRows, 1, Rows>(weights, values, bytes, places, size, i, sums);
  }

  template <int kRows, int kVectors, class Rows>
  static EC_INLINE void MixOf(const float* weights, const void* values, int64_t bytes, int64_t places, int64_t size, int64_t first,
                              float* sums) {
    Floats totals[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) totals[r][v] = V::Load(sums + r * size + first + v * kLanes);
    }
    for (int64_t j = 0; j < places; ++j) {
      Floats w[kRows];
      for (int r = 0; r < kRows; ++r) w[r] = V::Set(weights[r * kChunk + j]);
      for (int v = 0; v < kVectors; ++v) {
        const Floats value = Rows::Load(static_cast<const char*>(values) + j * bytes, first + v * kLanes);
        for (int r = 0; r < kRows; ++r) totals[r][v] = V::MultiplyAdd(w[r], value, totals[r][v]);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) V::Store(sums + r * size + first + v * kLanes, totals[r][v]);
    }
  }
};

template <class Tag>
constexpr AttentionKernels MakeAttentionKernels() {
  using Loops = AttentionLoops<Tag>;
  return {{Loops::template Scores<FloatRows<Tag>>, Loops::template Mix<FloatRows<Tag>>},
          {Loops::template Scores<HalfRows<Tag>>, Loops::template Mix<HalfRows<Tag>>},
          {Loops::template Scores<Int8Rows<Tag>>, Loops::template Mix<Int8Rows<Tag>>},
          Loops::EncodeHalf,
          Loops::DecodeHalf,
          Loops::DecodeInt8,
          Loops::Largest,
          Loops::Weights};
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_ATTENTION_ATTENTION_SIMD_H_
