// The codes of one row, in portable code: the C++ oracle of every vectorised decoder, and the reader of single rows.
#ifndef EDGECOMP_KERNELS_LUT_LUT_CODES_H_
#define EDGECOMP_KERNELS_LUT_LUT_CODES_H_

#include <cstdint>
#include <cstring>

#include "kernels/lut/lut_layout.h"

namespace edgecomp {

// Four codes, one a byte, of the columns 4 i to 4 i + 3 of a span.
using CodeWord = uint32_t;

// The codes of row `row` of a span of `planes` planes: words[i] holds the columns 4 i to 4 i + 3. Works on the row's 4 bytes of
// each plane at once; the positions are those of the table "Planes" in lut.md.
inline void ReadSpanCodes(const uint8_t* span, int64_t planes, int row, CodeWord (&words)[kColumnGroups]) {
  constexpr uint32_t kOnes = 0x01010101;
  uint32_t p[8] = {};
  for (int64_t plane = 0; plane < planes; ++plane) std::memcpy(&p[plane], span + plane * kPlaneBytes + row * 4, 4);
  const auto nibble = [&p](int i) { return p[i / 2] >> 4 * (i % 2) & kOnes * 15; };
  for (int i = 0; i < kColumnGroups; ++i) {
    switch (planes) {
      case 1:
        words[i] = p[0] >> i & kOnes;
        break;
      case 2:
        words[i] = p[i / 4] >> 2 * (i % 4) & kOnes * 3;
        break;
      case 3: {
        const int spare = i == 6 ? 3 : 7;  // the bit that the six codes of the nibbles leave free
        words[i] =
            i < 6 ? nibble(i) & kOnes * 7 : (p[0] >> spare & kOnes) | (p[1] >> spare & kOnes) << 1 | (p[2] >> spare & kOnes) << 2;
        break;
      }
      case 4:
        words[i] = nibble(i);
        break;
      case 5:
        words[i] = nibble(i) | (p[4] >> i & kOnes) << 4;
        break;
      case 6: {
        const uint32_t* triple = p + 3 * (i / 4);
        words[i] = i % 4 < 3 ? triple[i % 4] & kOnes * 63
                             : (triple[0] >> 6 & kOnes * 3) | (triple[1] >> 6 & kOnes * 3) << 2 | (triple[2] >> 6 & kOnes * 3) << 4;
        break;
      }
      default:
        words[i] = p[i];
    }
  }
}

inline uint8_t CodeAt(CodeWord word, int j) { return static_cast<uint8_t>(word >> 8 * j); }

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_LUT_CODES_H_
