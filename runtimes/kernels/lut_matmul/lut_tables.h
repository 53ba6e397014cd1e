// 16-entry look-up tables derived from a codebook, in the shape that the byte shuffles of all instruction sets take.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_TABLES_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_TABLES_H_

#include <cstdint>

namespace edgecomp {

// What entry[t][n] holds for a nibble n of a plane, by the number of planes (v is the codebook; entries not named are not set):
//   1  v[bit t of n]            2  t = 0: v[n & 3], t = 1: v[n >> 2]          3  t = 0: v[n & 7], t = 1: v[n >> 1]
//   4  t = 0: v[n]              5, 6  v[16 t + n], t below 2 or 4             8  unused: codes are the values
struct LutTables {
  alignas(16) int8_t entry[4][16];
  int32_t largest;  // magnitude in the codebook: how many products a narrow sum can hold
};

// Fills the tables from a codebook of 2**planes entries.
void MakeLutTables(const int8_t* codebook, int64_t planes, LutTables* tables);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_TABLES_H_
