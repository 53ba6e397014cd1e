#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvx512Vnni;
extern const LutMatMulKernels kLutMatMulAvx2;
extern const LutMatMulKernels kLutMatMulRef;

namespace {

constexpr Variant<LutMatMulKernels> kVariants[] = {
#if defined(__x86_64__)
    {Isa::kAvx512Vnni, &kLutMatMulAvx512Vnni},
    {Isa::kAvx2, &kLutMatMulAvx2},
#endif
    {Isa::kRef, &kLutMatMulRef},
};

}  // namespace

const LutMatMulKernels& LutMatMulKernelsFor(Isa isa) { return *VariantFor(kVariants, isa)->kernels; }

Isa LutMatMulIsaFor(Isa isa) { return VariantFor(kVariants, isa)->isa; }

}  // namespace edgecomp
