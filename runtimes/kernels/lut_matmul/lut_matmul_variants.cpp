#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAmx;
extern const LutMatMulKernels kLutMatMulAvx512Vbmi;
extern const LutMatMulKernels kLutMatMulAvx512Vnni;
extern const LutMatMulKernels kLutMatMulAvxVnni;
extern const LutMatMulKernels kLutMatMulAvx2;
extern const LutMatMulKernels kLutMatMulNeonI8mm;
extern const LutMatMulKernels kLutMatMulNeonDotprod;
extern const LutMatMulKernels kLutMatMulNeon;
extern const LutMatMulKernels kLutMatMulRef;

namespace {

constexpr Variant<LutMatMulKernels> kVariants[] = {
#if defined(__x86_64__)
    {Isa::kAmx, &kLutMatMulAmx},
    {Isa::kAvx512Vbmi, &kLutMatMulAvx512Vbmi},
    {Isa::kAvx512Vnni, &kLutMatMulAvx512Vnni},
    {Isa::kAvxVnni, &kLutMatMulAvxVnni},
    {Isa::kAvx2, &kLutMatMulAvx2},
#elif defined(__aarch64__)
    {Isa::kNeonI8mm, &kLutMatMulNeonI8mm},
    {Isa::kNeonDotprod, &kLutMatMulNeonDotprod},
    {Isa::kNeon, &kLutMatMulNeon},
#endif
    {Isa::kRef, &kLutMatMulRef},
};

}  // namespace

const LutMatMulKernels& LutMatMulKernelsFor(Isa isa) { return *VariantFor(kVariants, isa)->kernels; }

Isa LutMatMulIsaFor(Isa isa) { return VariantFor(kVariants, isa)->isa; }

}  // namespace edgecomp
