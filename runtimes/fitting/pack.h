// Codes to the planes of edgecomp/formats/lut.md.
#ifndef EDGECOMP_FITTING_PACK_H_
#define EDGECOMP_FITTING_PACK_H_

#include "fitting/kernels.h"
#include "fitting/simd.h"

namespace edgecomp::fitting::FITTING_ISA {

constexpr int kColumnGroups = 8;  // of 4 columns in a span

// `width` bits of the codes of group `group`, from `bit` on, lie in `plane` from `position` on.
struct Field {
  int group;
  int bit;
  int width;
  int plane;
  int position;
};

inline int FieldsOf(int bits, Field* fields) {
  int count = 0;
  for (int i = 0; i < kColumnGroups; ++i) {
    switch (bits) {
      case 1:
        fields[count++] = {i, 0, 1, 0, i};
        break;
      case 2:
        fields[count++] = {i, 0, 2, i / 4, 2 * (i % 4)};
        break;
      case 3:
        if (i < 6) {
          fields[count++] = {i, 0, 3, i / 2, 4 * (i % 2)};
        } else {
          for (int b = 0; b < 3; ++b) fields[count++] = {i, b, 1, b, i == 6 ? 3 : 7};
        }
        break;
      case 4:
        fields[count++] = {i, 0, 4, i / 2, 4 * (i % 2)};
        break;
      case 5:
        fields[count++] = {i, 0, 4, i / 2, 4 * (i % 2)};
        fields[count++] = {i, 4, 1, 4, i};
        break;
      case 6:
        if (i % 4 < 3) {
          fields[count++] = {i, 0, 6, 3 * (i / 4) + i % 4, 0};
        } else {
          for (int pair = 0; pair < 3; ++pair) fields[count++] = {i, 2 * pair, 2, 3 * (i / 4) + pair, 6};
        }
        break;
      default:
        fields[count++] = {i, 0, 8, i, 0};
        break;
    }
  }
  return count;
}

inline int PlanesOf(int bits) { return bits == 7 ? 8 : bits; }

inline void PackTile(const Problem& problem, const Codebook& codebook, int64_t tile, const int32_t* codes, uint8_t* planes) {
  const int bits = problem.rows.bits;
  const bool wide = bits >= 7;  // the values themselves
  Field fields[3 * kColumnGroups];
  const int field_count = FieldsOf(bits, fields);
  int32_t padding = 0;
  for (int32_t i = 1; i < codebook.entries; ++i) {
    if (std::fabs(codebook.values[i]) < std::fabs(codebook.values[padding])) padding = i;
  }
  const uint32_t filler = wide ? 0 : static_cast<uint32_t>(padding);
  const int64_t rows = problem.rows.n - tile * kTileRows;
  const int plane_count = PlanesOf(bits);
  uint32_t bytes[256];  // of every code
  for (int32_t i = 0; i < codebook.entries; ++i) {
    bytes[i] = wide ? static_cast<uint8_t>(static_cast<int8_t>(codebook.values[i])) : static_cast<uint32_t>(i);
  }
  for (int64_t span = 0; span < problem.padded / kSpanColumns; ++span) {
    uint32_t groups[kColumnGroups][kTileRows] = {};
    for (int column = 0; column < kSpanColumns; ++column) {
      const int64_t j = span * kSpanColumns + column;
      const bool real = problem.rows.importance[j] > 0;
      for (int r = 0; r < kTileRows; ++r) {
        const uint32_t code = real && r < rows ? bytes[codes[j * kTileRows + r]] : filler;
        groups[column / 4][r] |= code << (8 * (column % 4));
      }
    }
    uint32_t packed[8][kTileRows] = {};
    for (int f = 0; f < field_count; ++f) {
      const Field field = fields[f];
      const uint32_t mask = ((1u << field.width) - 1) * 0x01010101u;
      for (int r = 0; r < kTileRows; ++r)
        packed[field.plane][r] |= ((groups[field.group][r] >> field.bit) & mask) << field.position;
    }
    std::memcpy(planes + span * plane_count * 64, packed, static_cast<size_t>(plane_count) * 64);
  }
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_PACK_H_
