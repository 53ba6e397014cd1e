#define FITTING_ISA avx512
#include "fitting/variant.h"

namespace edgecomp::fitting {

const Kernels kAvx512Kernels = avx512::kVariant;

}  // namespace edgecomp::fitting
