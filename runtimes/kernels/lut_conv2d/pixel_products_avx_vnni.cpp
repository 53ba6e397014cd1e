// AVX-VNNI: Alder Lake and later without AVX-512.
#include "kernels/lut_conv2d/pixel_products_avx256.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsAvxVnni;

namespace {

struct AvxVnni : PixelsAvx256<AvxVnni> {
  using Operand = Bytes;
  // Of the 16 registers 12 are sums, 3 pixels and one weights.
  static constexpr int kRowsAtOnce = 4, kVectorsAtOnce = 3, kGroupsAtOnce = 1;
  static Operand ToOperand(Bytes bytes) { return bytes; }
  static Sums Dot(Sums sum, Operand x, __m256i weights) {
    sum = _mm256_dpbusd_avx_epi32(sum, x, weights);
    asm("" : "+x"(sum));  // GCC would copy each sum before and after
    return sum;
  }
};

}  // namespace

const PixelProductsKernels kPixelProductsAvxVnni = PixelProducts<AvxVnni>::Kernels();

}  // namespace edgecomp
