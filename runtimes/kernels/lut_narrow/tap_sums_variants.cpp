#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {

extern const TapSumsKernels kTapSumsAvx512Vnni;
extern const TapSumsKernels kTapSumsAvx2;
extern const TapSumsKernels kTapSumsNeon;
extern const TapSumsKernels kTapSumsRef;

namespace {

constexpr Variant<TapSumsKernels> kVariants[] = {
#if defined(__x86_64__)
    {Isa::kAvx512Vnni, &kTapSumsAvx512Vnni},
    {Isa::kAvx2, &kTapSumsAvx2},
#elif defined(__aarch64__)
    {Isa::kNeon, &kTapSumsNeon},
#endif
    {Isa::kRef, &kTapSumsRef},
};

}  // namespace

const TapSumsKernels& TapSumsKernelsFor(Isa isa) { return *VariantFor(kVariants, isa)->kernels; }

Isa TapSumsIsaFor(Isa isa) { return VariantFor(kVariants, isa)->isa; }

}  // namespace edgecomp
