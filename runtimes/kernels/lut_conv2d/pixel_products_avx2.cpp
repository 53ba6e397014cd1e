// AVX2: vpmaddubsw multiplies unsigned pixels by signed weights and adds pairs with saturation, so that the weights' magnitude
// decides how: 255 * 63 * 2 and 255 * 31 * 4 are below 2**15.
#include "kernels/lut_conv2d/pixel_products_avx256.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsAvx2;

namespace {

// Pairs of 16-bit products; of the 16 registers 8 are sums.
template <class Tag>
struct Avx2 : PixelsAvx256<Tag> {
  using Bytes = __m256i;
  using Sums = __m256i;
  static constexpr int kRowsAtOnce = 4, kVectorsAtOnce = 2, kGroupsAtOnce = 1;
  static Sums AddPairs(Sums sum, __m256i pairs) { return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))); }
};

// Any weights, by products of 16 bits: of the bytes at even places and of those at odd ones.
struct Any : Avx2<Any> {
  struct Operand {
    __m256i even, odd;
  };
  static Operand ToOperand(Bytes bytes) { return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)}; }
  static Sums Dot(Sums sum, Operand x, __m256i weights) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8), odd = _mm256_srai_epi16(weights, 8);
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(x.even, even), _mm256_madd_epi16(x.odd, odd)));
  }
};

template <class Tag>
struct Small : Avx2<Tag> {
  using Bytes = __m256i;
  using Sums = __m256i;
  using Operand = Bytes;
  static Operand ToOperand(Bytes bytes) { return bytes; }
  static Sums Dot(Sums sum, Operand x, __m256i weights) { return Avx2<Tag>::AddPairs(sum, _mm256_maddubs_epi16(x, weights)); }
};

struct Within63 : Small<Within63> {};

// The products of two groups add up in 16 bits.
struct Within31 : Small<Within31> {
  static constexpr int kGroupsAtOnce = 2;
  static Sums DotOfPair(Sums sum, Operand x0, __m256i w0, Operand x1, __m256i w1) {
    return AddPairs(sum, _mm256_add_epi16(_mm256_maddubs_epi16(x0, w0), _mm256_maddubs_epi16(x1, w1)));
  }
};

constexpr PixelProductsKernels kAny = PixelProducts<Any>::Kernels();
constexpr PixelProductsKernels kWithin63 = PixelProducts<Within63>::Kernels(63, &kAny);

}  // namespace

const PixelProductsKernels kPixelProductsAvx2 = PixelProducts<Within31>::Kernels(31, &kWithin63);

}  // namespace edgecomp
