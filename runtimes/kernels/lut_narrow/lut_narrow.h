// Sizes and weights of the packed format `lut_narrow` (edgecomp/formats/lut_narrow.md).
#ifndef EDGECOMP_KERNELS_LUT_NARROW_LUT_NARROW_H_
#define EDGECOMP_KERNELS_LUT_NARROW_LUT_NARROW_H_

#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

struct LutNarrowLayout {
  int64_t code_bits;       // P
  int64_t weights;         // N * K
  int64_t code_bytes;      // of `codes`
  int64_t codebook_bytes;  // of `codebook`: 0 where the codes are the values
};

// Checks the sizes of `factor`, not its pointers, and derives the rest.
ec_status MakeLutNarrowLayout(const ec_lut_narrow_factor& factor, LutNarrowLayout* layout);

// As above, and requires the pointers.
ec_status CheckedLutNarrowLayout(const ec_lut_narrow_factor* factor, LutNarrowLayout* layout);

// Writes the weights of the rows [first, last) to `weights`, which holds all N rows.
void DecodeNarrowRows(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout, int64_t first, int64_t last,
                      float* weights);

// The rows [first, first + 16) as int8, those past the last one 0: as tiles of int8_conv2d.h, of which a tap's channels fill fours.
// Writes the rows' steps and returns the largest magnitude that a weight may have.
int32_t DecodeNarrowTile(const ec_lut_narrow_factor& factor, const LutNarrowLayout& layout, int64_t first, int64_t channels,
                         uint8_t* panel, float* steps);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_NARROW_LUT_NARROW_H_
