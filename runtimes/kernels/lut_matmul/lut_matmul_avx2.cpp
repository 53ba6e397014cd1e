// AVX2 and FMA.
#include "kernels/lut_matmul/lut_matmul_avx256.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvx2;

namespace {

struct Avx2 : Avx256<Avx2> {
  // vpmaddubsw multiplies unsigned by signed bytes and adds pairs with saturation. The magnitude of one factor takes the unsigned
  // side and the other, with the sign of the first, the signed one: 2 * 127 * 127 does not saturate. Which is split is free: what
  // more products share.
  struct Weights {
    Bytes magnitude;
    Bytes sign;
  };
  struct Activations {
    Bytes magnitude;
    Bytes sign;
  };
  static constexpr uint8_t kFlip = 0;
  static constexpr int kDotChains = 1;  // a chain waits for its addition only
  static Ints StartSum(int32_t) { return _mm256_setzero_si256(); }
  static Weights ToWeights(Bytes bytes) { return {_mm256_abs_epi8(bytes), bytes}; }
  static Activations ToActivations(Bytes q) { return {_mm256_abs_epi8(q), q}; }
  static Ints Dot(Ints sum, const Weights& weights, Bytes q) {
    return AddPairs(sum, _mm256_maddubs_epi16(weights.magnitude, _mm256_sign_epi8(q, weights.sign)));
  }
  static Ints Dot(Ints sum, Bytes weights, const Activations& q) {
    return AddPairs(sum, _mm256_maddubs_epi16(q.magnitude, _mm256_sign_epi8(weights, q.sign)));
  }
  static Ints AddPairs(Ints sum, __m256i pairs) { return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))); }
  // -128 has no negative in a byte; a code of it counts as -127 (lut.md).
  static Bytes CodesToWeights(Bytes codes) { return _mm256_max_epi8(codes, _mm256_set1_epi8(-127)); }
};

}  // namespace

const LutMatMulKernels kLutMatMulAvx2 = LutMatMulSimd<Avx2>::Kernels();

}  // namespace edgecomp
