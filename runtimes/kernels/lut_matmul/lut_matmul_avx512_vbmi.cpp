#include "kernels/lut_matmul/lut_matmul_avx512_vbmi.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvx512Vbmi;

namespace {

struct Vbmi : Avx512Vbmi<Vbmi> {};

}  // namespace

const LutMatMulKernels kLutMatMulAvx512Vbmi = LutMatMulSimd<Vbmi>::Kernels();

}  // namespace edgecomp
