// Decodes single rows to float32: for gathers and for grouped convolutions.
#ifndef EDGECOMP_KERNELS_LUT_LUT_ROW_H_
#define EDGECOMP_KERNELS_LUT_LUT_ROW_H_

#include "kernels/lut/lut_layout.h"

namespace edgecomp {

// Writes the first K weights of a lane (tile * 16 + row of the tile).
void DecodeLane(const ec_lut_factor& factor, const LutLayout& layout, int64_t lane, float* weights);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_LUT_ROW_H_
