// The checks of lut.md's "Bad input".
#include <cstring>

#include "kernels/lut/lut_layout.h"

namespace edgecomp {
namespace {

// Loops over whole arrays run to their end, with results as wide as what they read, so that the compiler vectorises them.

bool WithinSymmetricRange(const int8_t* values, size_t count) {
  uint8_t found = 0;
  for (size_t i = 0; i < count; ++i) found |= static_cast<uint8_t>(values[i] == INT8_MIN);
  return found == 0;
}

bool AllFinite(const float* values, int64_t count) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return found == 0;
}

bool NamesBooks(const ec_lut_factor& factor) {
  uint16_t found = 0;
  for (int64_t tile = 0; tile < factor.tiles; ++tile) found |= static_cast<uint16_t>(factor.tile_book[tile] >= factor.books);
  return found == 0;
}

// Rows of the matrix, or -1.
bool NamesRows(const ec_lut_factor& factor) {
  uint32_t found = 0;
  for (int64_t lane = 0; lane < factor.tiles * kTileRows; ++lane) {
    found |= static_cast<uint32_t>(factor.row_index[lane] < -1) | static_cast<uint32_t>(factor.row_index[lane] >= factor.n);
  }
  return found == 0;
}

// The fixed table of 7 and 8 bits: entry c is c in two's complement, and -127 for 128.
bool IsIdentityCodebook(const int8_t* codebook) {
  for (int code = 0; code < 256; ++code) {
    const int value = code < 128 ? code : code == 128 ? -127 : code - 256;
    if (codebook[code] != value) return false;
  }
  return true;
}

bool NamesEveryRowOnce(const ec_lut_factor& factor, uint8_t* seen) {
  std::memset(seen, 0, static_cast<size_t>(factor.n));
  int64_t rows = 0;
  for (int64_t lane = 0; lane < factor.tiles * kTileRows; ++lane) {
    const int64_t row = factor.row_index[lane];
    if (row == -1) continue;
    if (row < 0 || row >= factor.n || seen[row] != 0) return false;
    seen[row] = 1;
    ++rows;
  }
  return rows == factor.n;
}

}  // namespace
}  // namespace edgecomp

using edgecomp::LutLayout;

ec_status ec_lut_check_sizes(const ec_lut_factor* factor) {
  LutLayout layout;
  return edgecomp::CheckedLutLayout(factor, &layout);
}

ec_status ec_lut_array_bytes(const ec_lut_factor* factor, ec_lut_bytes* out) {
  if (factor == nullptr || out == nullptr) return EC_ERR_NULL_POINTER;
  LutLayout layout;
  const ec_status status = edgecomp::MakeLutLayout(*factor, &layout);
  if (status == EC_OK) *out = layout.bytes;
  return status;
}

ec_status ec_lut_check_bounds(const ec_lut_factor* factor) {
  LutLayout layout;
  const ec_status status = edgecomp::CheckedLutLayout(factor, &layout);
  if (status != EC_OK) return status;
  if (!edgecomp::NamesBooks(*factor)) return EC_ERR_TILE_BOOK;
  return factor->row_index == nullptr || edgecomp::NamesRows(*factor) ? EC_OK : EC_ERR_ROW_INDEX;
}

ec_status ec_lut_check(const ec_lut_factor* factor, uint8_t* scratch) {
  LutLayout layout;
  const ec_status status = edgecomp::CheckedLutLayout(factor, &layout);
  if (status != EC_OK) return status;
  if (!edgecomp::WithinSymmetricRange(factor->codebooks, layout.bytes.codebooks)) return EC_ERR_CODEBOOKS;
  if (!edgecomp::WithinSymmetricRange(factor->scales, layout.bytes.scales)) return EC_ERR_SCALES;
  if (layout.planes == 8 && !edgecomp::IsIdentityCodebook(factor->codebooks)) return EC_ERR_CODEBOOKS;
  if (!edgecomp::NamesBooks(*factor)) return EC_ERR_TILE_BOOK;
  if (!edgecomp::AllFinite(factor->row_scale, layout.tiles * edgecomp::kTileRows)) return EC_ERR_ROW_SCALE;
  if (factor->row_index == nullptr) return EC_OK;
  if (scratch == nullptr) return EC_ERR_WORKSPACE;
  return edgecomp::NamesEveryRowOnce(*factor, scratch) ? EC_OK : EC_ERR_ROW_INDEX;
}
