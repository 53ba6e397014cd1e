// The instruction sets that this build has kernels for, and the one that runs.
#ifndef EDGECOMP_CORE_ISA_H_
#define EDGECOMP_CORE_ISA_H_

#include <cstddef>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

// In order of priority; an op without a kernel for the selected set runs the next one that it has.
enum class Isa : int {
#if defined(__x86_64__)
  kAmx,
  kAvx512Vbmi,
  kAvx512Vnni,
  kAvxVnni,
  kAvx2,
#elif defined(__aarch64__)
  kNeonI8mm,
  kNeonDotprod,
  kNeon,
#endif
  kRef,
  kCount,
};

// The first available set, or what EDGECOMP_FORCE_ISA names: a name that is unknown or that this CPU cannot run is an error.
ec_status SelectedIsa(Isa* isa);

bool IsaAvailable(Isa isa);
const char* IsaName(Isa isa);

// An op's kernels for one instruction set; an op lists its own in order of priority, "ref" last.
template <class Kernels>
struct Variant {
  Isa isa;
  const Kernels* kernels;
};

// The variant that runs for the selected `isa`: its own, or the next one that the op has.
template <class Kernels, size_t kCount>
const Variant<Kernels>* VariantFor(const Variant<Kernels> (&variants)[kCount], Isa isa) {
  for (const Variant<Kernels>& variant : variants) {
    if (variant.isa >= isa && IsaAvailable(variant.isa)) return &variant;
  }
  return nullptr;
}

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_ISA_H_
