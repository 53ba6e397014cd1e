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
  static Bytes ToWeights(Bytes bytes) { return bytes; }
  static Activations ToActivations(Bytes q) { return q; }
  static Ints Dot(Ints sum, Bytes weights, Bytes q) { return _mm256_dpbusd_avx_epi32(sum, weights, q); }
  static Bytes CodesToWeights(Bytes codes) { return codes; }
};

}  // namespace

const LutMatMulKernels kLutMatMulAvxVnni = LutMatMulSimd<AvxVnni>::Kernels();

}  // namespace edgecomp
