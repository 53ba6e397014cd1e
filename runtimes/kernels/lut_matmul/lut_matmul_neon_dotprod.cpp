// Armv8.2 with the dot product: Cortex-A55, A75 and later; Raspberry Pi 5.
#include "kernels/lut_matmul/lut_matmul_neon_dotprod.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulNeonDotprod;

namespace {
struct Dotprod;
}

const LutMatMulKernels kLutMatMulNeonDotprod = LutMatMulNeon<Dotprod, SdotProduct<Dotprod>>::Kernels();

}  // namespace edgecomp
