// Sizes and addresses of the packed format `lut` (edgecomp/formats/lut.md).
#ifndef EDGECOMP_KERNELS_LUT_LUT_LAYOUT_H_
#define EDGECOMP_KERNELS_LUT_LUT_LAYOUT_H_

#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

constexpr int kTileRows = 16;
constexpr int kSpanColumns = 32;
constexpr int kColumnGroups = 8;  // groups of 4 columns in a span
constexpr int kPlaneBytes = 64;
constexpr int64_t kMaxBlockSize = 65536;
constexpr int64_t kMaxBooks = 65536;

struct LutLayout {
  int64_t tiles;   // T
  int64_t spans;   // S
  int64_t planes;  // P
  int64_t blocks;  // blocks of a row
  int64_t spans_per_block;
  int64_t padded_k;
  int64_t entries;  // of a codebook
  ec_lut_bytes bytes;

  int64_t tile_code_bytes() const { return spans * planes * kPlaneBytes; }
};

// Checks the sizes of `factor`, not its pointers, and derives the rest.
ec_status MakeLutLayout(const ec_lut_factor& factor, LutLayout* layout);

// As above, and requires the pointers: the first step of every kernel.
ec_status CheckedLutLayout(const ec_lut_factor* factor, LutLayout* layout);

// The matrix row of a lane (tile * 16 + row of the tile), or -1 where the lane is padding.
inline int64_t RowOfLane(const ec_lut_factor& factor, int64_t lane) {
  if (factor.row_index != nullptr) return factor.row_index[lane];
  return lane < factor.n ? lane : -1;
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_LUT_LAYOUT_H_
