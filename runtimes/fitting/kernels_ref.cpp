#define FITTING_ISA ref
#include "fitting/variant.h"

namespace edgecomp::fitting {

const Kernels kRefKernels = ref::kVariant;

}  // namespace edgecomp::fitting
