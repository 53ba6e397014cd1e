// AVX2 and FMA.
#include "kernels/lut_matmul/lut_matmul_avx256.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvx2;

namespace {

// vpmaddubsw multiplies unsigned by signed bytes and adds pairs with saturation; vpmaddwd adds the pairs of pairs.
inline __m256i AddPairs(__m256i sum, __m256i pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <class Tag>
struct Avx2Products : Avx256<Tag> {
  // 6 int sums, 2 vectors of weights and what a product takes are in the 16 registers; the float sums wait in the cache.
  static constexpr int kInt8RowsAtOnce = 3;
  static constexpr int kInt8PartsAtOnce = 2;
  static constexpr int kDotChains = 1;  // a chain waits for its addition only
};

// Any entries. The magnitude of one factor takes the unsigned side and the other, with the sign of the first, the signed one:
// 2 * 127 * 127 does not saturate. Which is split is free: what more products share.
struct Avx2 : Avx2Products<Avx2> {
  struct Weights {
    Bytes magnitude;
    Bytes sign;
  };
  struct Activations {
    Bytes magnitude;
    Bytes sign;
  };
  static constexpr uint8_t kOffset = 0;
  static Weights ToWeights(Bytes bytes) { return {_mm256_abs_epi8(bytes), bytes}; }
  static Activations ToActivations(Bytes q) { return {_mm256_abs_epi8(q), q}; }
  static Ints Dot(Ints sum, const Weights& weights, Bytes q) {
    return AddPairs(sum, _mm256_maddubs_epi16(weights.magnitude, _mm256_sign_epi8(q, weights.sign)));
  }
  static Ints Dot(Ints sum, Bytes weights, const Activations& q) {
    return AddPairs(sum, _mm256_maddubs_epi16(q.magnitude, _mm256_sign_epi8(weights, q.sign)));
  }
  // -128 has no negative in a byte; a code of it counts as -127 (lut.md).
  static Bytes CodesToWeights(Bytes codes) { return _mm256_max_epi8(codes, _mm256_set1_epi8(-127)); }
};

// Entries within kLargest, at most 63: with an offset they are unsigned bytes of at most 127, which do not saturate either, and no
// sign has to be split off. Codes of 8 bits never come here.
template <class Tag, int kLargest>
struct Avx2WithOffset : Avx2Products<Tag> {
  using Bytes = __m256i;
  using Ints = __m256i;
  using Activations = Bytes;
  static constexpr uint8_t kOffset = kLargest + 1;
  static Bytes ToWeights(Bytes bytes) { return bytes; }
  static Activations ToActivations(Bytes q) { return q; }
  static Ints Dot(Ints sum, Bytes weights, Bytes q) { return AddPairs(sum, _mm256_maddubs_epi16(weights, q)); }
  static Bytes CodesToWeights(Bytes codes) { return codes; }
};

struct Avx2Within63 : Avx2WithOffset<Avx2Within63, 63> {};

// Here the products of two groups of columns add up in 16 bits: 4 * 63 * 127 = 32004.
struct Avx2Within31 : Avx2WithOffset<Avx2Within31, 31> {
  static constexpr int kInt8RowsAtOnce = 4;
  static constexpr int kInt8GroupsAtOnce = 2;
  static Ints DotOfPair(Ints sum, const Bytes (&weights)[2], const Bytes (&q)[2]) {
    return AddPairs(sum, _mm256_add_epi16(_mm256_maddubs_epi16(weights[0], q[0]), _mm256_maddubs_epi16(weights[1], q[1])));
  }
};

constexpr LutMatMulKernels kWithin31 = LutMatMulSimd<Avx2Within31>::Kernels(31);
constexpr LutMatMulKernels kWithin63 = LutMatMulSimd<Avx2Within63>::Kernels(63, &kWithin31);

}  // namespace

const LutMatMulKernels kLutMatMulAvx2 = LutMatMulSimd<Avx2>::Kernels(127, &kWithin63);

}  // namespace edgecomp
