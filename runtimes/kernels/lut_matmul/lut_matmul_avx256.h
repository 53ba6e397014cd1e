// What the variants with vectors of 256 bits share: the 16 rows of a tile are the lanes of two vectors. How bytes are multiplied is
// theirs.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX256_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX256_H_

#include <immintrin.h>

#include "kernels/lut_matmul/lut_matmul_simd.h"

namespace edgecomp {

template <class Tag>
struct Avx256 {
  using Bytes = __m256i;
  using Ints = __m256i;
  using Floats = __m256;
  static constexpr int kRows = 8;
  static constexpr int kInt8GroupsAtOnce = 1;
  static constexpr int kFloatRowsAtOnce = 4;

  static Bytes Broadcast4(const int8_t* q) {
    int32_t four;
    __builtin_memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi32(four);
  }
  static Bytes Load(const uint8_t* bytes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)); }
  static void Store(uint8_t* to, Bytes bytes) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes); }
  static Bytes LoadTable(const int8_t* table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  }
  static Bytes SetBytes(uint8_t byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
  static Bytes AddBytes(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }
  static Bytes Select(Bytes mask, Bytes if_1, Bytes if_0) {
    return _mm256_or_si256(_mm256_and_si256(mask, if_1), _mm256_andnot_si256(mask, if_0));
  }
  // By 16-bit lanes.
  template <int kBits>
  static Bytes ShiftRight(Bytes bytes) {
    return _mm256_srli_epi16(bytes, kBits);
  }
  static Bytes ToIndex(Bytes nibbles) { return _mm256_and_si256(nibbles, _mm256_set1_epi8(0x0f)); }
  static Bytes LookUp(Bytes table, Bytes index) { return _mm256_shuffle_epi8(table, index); }

  // 32 or 64 entries, 16 a vector.
  struct WideTable {
    Bytes part[4];
  };
  template <int kEntries>
  static WideTable LoadWideTable(const int8_t* entries, Bytes offset) {
    WideTable table;
    for (int t = 0; t < kEntries / 16; ++t) table.part[t] = AddBytes(LoadTable(entries + 16 * t), offset);
    return table;
  }
  // Bit kBit of `top` is the bit above the index.
  template <int kBit>
  static Bytes LookUp32(const WideTable& table, Bytes index, Bytes top) {
    return SelectByBit<kBit>(top, LookUp(table.part[0], index), LookUp(table.part[1], index));
  }
  // The low 6 bits of each byte.
  static Bytes LookUp64(const WideTable& table, Bytes codes) {
    const Bytes index = ToIndex(codes);
    const Bytes lower = SelectByBit<4>(codes, LookUp(table.part[0], index), LookUp(table.part[1], index));
    const Bytes upper = SelectByBit<4>(codes, LookUp(table.part[2], index), LookUp(table.part[3], index));
    return SelectByBit<5>(codes, lower, upper);
  }
  template <int kBit>
  static Bytes SelectByBit(Bytes bits, Bytes if_0, Bytes if_1) {
    return _mm256_blendv_epi8(if_0, if_1, _mm256_slli_epi16(bits, 7 - kBit));  // blends by the top bit of each byte
  }

  static Ints SetInts(int32_t value) { return _mm256_set1_epi32(value); }
  template <int kBits>
  static Ints ShiftLeft(Ints ints) {
    return _mm256_slli_epi32(ints, kBits);
  }
  static Ints ZeroInts() { return _mm256_setzero_si256(); }
  static Ints Add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static Ints MaxMagnitudes(Ints most, const float* x) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    return _mm256_max_epi32(most, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
  }
  static int32_t LargestLane(Ints lanes) {
    __m128i most = _mm_max_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    most = _mm_max_epi32(most, _mm_shuffle_epi32(most, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(most, _mm_shuffle_epi32(most, 0xb1)));
  }
  static int32_t SumOfLanes(Ints lanes) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
  }
  // 32 values; returns lanes whose sum is the sum of q.
  static Ints QuantizeSpan(const float* x, float inverse, int8_t* q) {
    const Floats scale = _mm256_set1_ps(inverse);
    const Ints a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
    const Ints b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    const Ints c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), scale));
    const Ints d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), scale));
    // Packing goes by halves of the vectors: 4 values of a, of b, c and d, then the others.
    const Bytes packed = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q),
                        _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    return Add(Add(a, b), Add(c, d));
  }

  static Floats ZeroFloats() { return _mm256_setzero_ps(); }
  static Floats Add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
  static Floats LoadFloats(const float* from) { return _mm256_loadu_ps(from); }
  static void Store(float* to, Floats floats) { _mm256_storeu_ps(to, floats); }
  static Floats ToFloats(Ints ints) { return _mm256_cvtepi32_ps(ints); }
  static Floats AddScaled(Floats total, Floats sum, const int8_t* scales, float step) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales));
    const Floats scale = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_set1_ps(step));
    return _mm256_fmadd_ps(sum, scale, total);
  }
  template <int kByte>
  static Floats ByteToFloats(Bytes bytes) {
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 24 - 8 * kByte), 24));
  }
  static Floats MultiplyAdd(Floats weights, float x, Floats sum) { return _mm256_fmadd_ps(weights, _mm256_set1_ps(x), sum); }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX256_H_
