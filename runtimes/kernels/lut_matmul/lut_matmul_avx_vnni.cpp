// AVX-VNNI, AVX2 and FMA: Alder Lake and later without AVX-512, Zen 5.
#include "kernels/lut_matmul/lut_matmul_avx256.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvxVnni;

namespace {

struct AvxVnni : Avx256<AvxVnni> {
  using Activations = Bytes;
  // As in lut_matmul_avx512.h.
  static constexpr uint8_t kOffset = 128;
  static constexpr int kDotChains = 2;
  // 12 int sums, as many as hide a product's latency, 2 vectors of weights and one of x; the float sums wait in the cache.
  static constexpr int kInt8RowsAtOnce = 6;
  static constexpr int kInt8PartsAtOnce = 2;
  static Bytes ToWeights(Bytes bytes) { return bytes; }
  static Activations ToActivations(Bytes q) { return q; }
  static Ints Dot(Ints sum, Bytes weights, Bytes q) {
    sum = _mm256_dpbusd_avx_epi32(sum, weights, q);
    asm("" : "+x"(sum));  // GCC would copy each sum before and after
    return sum;
  }
  static Bytes CodesToWeights(Bytes codes) { return codes; }
};

}  // namespace

const LutMatMulKernels kLutMatMulAvxVnni = LutMatMulSimd<AvxVnni>::Kernels();

}  // namespace edgecomp
