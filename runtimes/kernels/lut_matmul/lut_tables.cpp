#include "kernels/lut_matmul/lut_tables.h"

namespace edgecomp {

void MakeLutTables(const int8_t* codebook, int64_t planes, LutTables* tables) {
  tables->largest = 0;
  for (int code = 0; code < 1 << planes; ++code) {
    const int32_t magnitude = codebook[code] < 0 ? -codebook[code] : codebook[code];
    if (magnitude > tables->largest) tables->largest = magnitude;
  }
  for (int t = 0; t < 4; ++t) {
    for (int n = 0; n < 16; ++n) {
      int code = 0;
      switch (planes) {
        case 1:
          code = n >> t & 1;
          break;
        case 2:
          code = t == 0 ? n & 3 : n >> 2;
          break;
        case 3:
          code = t == 0 ? n & 7 : n >> 1;
          break;
        case 4:
          code = n;
          break;
        case 5:
          code = 16 * (t & 1) + n;
          break;
        case 6:
          code = 16 * t + n;
          break;
        default:
          break;
      }
      tables->entry[t][n] = codebook[code];
    }
  }
}

}  // namespace edgecomp
