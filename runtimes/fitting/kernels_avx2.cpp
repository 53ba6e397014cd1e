#define FITTING_ISA avx2
#include "fitting/variant.h"

namespace edgecomp::fitting {

const Kernels kAvx2Kernels = avx2::kVariant;

}  // namespace edgecomp::fitting
