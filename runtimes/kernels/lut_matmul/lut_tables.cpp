#include "kernels/lut_matmul/lut_tables.h"

namespace edgecomp {

void MakeLutTables(const int8_t* codebook, int64_t planes, LutTables* tables) {
  tables->largest = 0;
  for (int code = 0; code < 1 << planes; ++code) {
    const int32_t magnitude = codebook[code] < 0 ? -codebook[code] : codebook[code];
    if (magnitude > tables->largest) tables->largest = magnitude;
  }
  const auto fill = [&](int count, const auto& code) {
    for (int t = 0; t < count; ++t) {
      for (int n = 0; n < 16; ++n) tables->entry[t][n] = codebook[code(t, n)];
    }
  };
  switch (planes) {
    case 1:
      return fill(4, [](int t, int n) { return n >> t & 1; });
    case 2:
      return fill(2, [](int t, int n) { return t == 0 ? n & 3 : n >> 2; });
    case 3:
      return fill(2, [](int t, int n) { return t == 0 ? n & 7 : n >> 1; });
    case 4:
      return fill(1, [](int, int n) { return n; });
    case 5:
      return fill(2, [](int t, int n) { return 16 * t + n; });
    default:
      return fill(4, [](int t, int n) { return 16 * t + n; });
  }
}

}  // namespace edgecomp
