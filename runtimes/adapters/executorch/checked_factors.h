// The factors whose values were checked already. ExecuTorch's kernels have no state, and to check all values in every call took
// half as long as the product.
#ifndef EDGECOMP_ADAPTERS_EXECUTORCH_CHECKED_FACTORS_H_
#define EDGECOMP_ADAPTERS_EXECUTORCH_CHECKED_FACTORS_H_

#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp::et {

// A number for a factor's sizes and addresses, never 0. Another program may later lie at the same addresses: a caller must check
// bounds all the same.
uint64_t FingerprintOf(const ec_lut_factor& factor);

bool WasChecked(uint64_t fingerprint);
void RememberChecked(uint64_t fingerprint);

}  // namespace edgecomp::et

#endif  // EDGECOMP_ADAPTERS_EXECUTORCH_CHECKED_FACTORS_H_
