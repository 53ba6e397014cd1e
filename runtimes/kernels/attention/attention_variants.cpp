#include "kernels/attention/attention.h"

namespace edgecomp {

extern const AttentionKernels kAttentionAvx512Vnni;
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionNeon;
extern const AttentionKernels kAttentionRef;

namespace {

constexpr Variant<AttentionKernels> kVariants[] = {
#if defined(__x86_64__)
    {Isa::kAvx512Vnni, &kAttentionAvx512Vnni},
    {Isa::kAvx2, &kAttentionAvx2},
#elif defined(__aarch64__)
    {Isa::kNeon, &kAttentionNeon},
#endif
    {Isa::kRef, &kAttentionRef},
};

}  // namespace

const AttentionKernels& AttentionKernelsFor(Isa isa) { return *VariantFor(kVariants, isa)->kernels; }

Isa AttentionIsaFor(Isa isa) { return VariantFor(kVariants, isa)->isa; }

}  // namespace edgecomp
