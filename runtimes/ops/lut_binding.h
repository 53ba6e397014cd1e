// The binder of the format `lut`: an ec_lut_factor of a call's tensors and attributes.
#ifndef EDGECOMP_OPS_LUT_BINDING_H_
#define EDGECOMP_OPS_LUT_BINDING_H_

#include "ops/op.h"

namespace edgecomp {

extern const Binder kLutBinder;

inline const ec_lut_factor& LutOf(const Factor& factor) { return factor.as<ec_lut_factor>(); }

}  // namespace edgecomp

#endif  // EDGECOMP_OPS_LUT_BINDING_H_
