// The kernels of lut_matmul: what an instruction set implements, and what the driver promises it.
//
// The driver (lut_matmul_driver.cpp) checks arguments, prepares x, splits the work and stores the results. It cuts K into *chunks*
// of whole blocks, so that a chunk's decoded weights stay in the first-level cache:
//
//   a few rows of x   direct_int8 runs a tile's chunk straight from the planes
//   more, or float    decode writes a tile's chunk as a *panel* of bytes, as a rule [spans][8][16 rows][4 columns] (the layout that
//                     planes of 8 bits have), and gemm_* multiplies it by all rows of x
//
// To add an instruction set: one file with these functions, and one line in lut_matmul_variants.cpp.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_H_

#include <cstdint>

#include "core/isa.h"
#include "kernels/lut/lut_layout.h"
#include "kernels/lut_matmul/lut_tables.h"

namespace edgecomp {

// The weights of a tile, or of a chunk of it: pointers to its first span and first block.
struct LutTile {
  const uint8_t* codes;     // [spans][planes][16][4]
  const int8_t* scales;     // [blocks][16]
  const int8_t* codebook;   // 2**planes entries
  const LutTables* tables;  // of the codebook
};

// Rows of x in int8 compute. step and minus_sum of row m and block b are at [b * stride + m].
struct QuantizedRows {
  const int8_t* q;  // [rows][blocks * block_size]
  const float* step;
  const int32_t* minus_sum;  // of the block's q: times the offset of a variant's weights, what its sums start at
  int64_t stride;
};

// A whole tile's sums and what they become: z[m][r] = sums[m][r] * row_scale[r] + bias[r] + addend[m * addend_stride + r].
struct TileSums {
  const float* sums;       // [rows][16]
  const float* row_scale;  // [16]
  const float* bias;       // [16], or null
  const float* addend;     // or null
  int64_t addend_stride;
};

// The columns that a call covers.
struct BlockCount {
  int64_t blocks;
  int64_t spans_per_block;
  int64_t columns;  // blocks * spans_per_block * 32
};

// With more rows of x than this, decoding to memory once beats decoding in registers for every few rows.
constexpr int64_t kMostDirectRows = 4;

// What a panel is decoded for. For kInt8 each variant lays it out as gemm_int8 takes it; kPlain are signed bytes in the order
// above, in every variant.
enum class Panel { kInt8, kPlain };

struct LutMatMulKernels {
  // Quantises `count` (1 to block_size) values by the rule of lut.md and fills up with zeros to block_size.
  void (*quantize_block)(const float* x, int64_t count, int64_t block_size, int8_t* q, float* step, int32_t* minus_sum);

  // sums[m][r] += x[m] . w[r] without the row scale, for the 16 rows of a tile and at most kMostDirectRows rows of x; x.stride is 1
  // where there is one row. Indexed by planes; null where decode and gemm_int8 serve.
  void (*direct_int8[9])(const LutTile& tile, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums);

  // Writes the panel of `spans` spans, 512 bytes each. Indexed by planes.
  void (*decode[9])(const LutTile& tile, int64_t spans, Panel kind, uint8_t* panel);

  // sums[m][r] += x[m] . w[r] for the 16 rows of a panel of its kind.
  void (*gemm_int8)(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count,
                    float* sums);
  void (*gemm_float)(const uint8_t* panel, const int8_t* scales, const float* x, int64_t rows, BlockCount count, float* sums);

  // y[i] = activation(z[i]), times factor[i] where factor is not null: the same bits in every variant. y may be z or factor.
  void (*activate)(ec_activation activation, const float* z, const float* factor, float* y, int64_t count);

  // y[m * y_stride + r] = activation(z[m][r]), times factor's z[m][r] where factor is not null, for the 16 rows of a tile and
  // `rows` rows of x: bits as of `activate`.
  void (*store_tile)(ec_activation activation, const TileSums& z, const TileSums* factor, int64_t rows, float* y, int64_t y_stride);

  // The largest magnitude of codebook entries that these kernels multiply exactly.
  int32_t largest_entry = 127;

  // Kernels for smaller entries that give the same results with fewer operations: for tiles of at most 6 planes they take the place
  // of direct_int8, decode and gemm_int8. Null where they would bring nothing.
  const LutMatMulKernels* small_entries = nullptr;

  // A thread begins before it calls gemm_int8 with `rows` rows, again where their number changes, and ends once. Null where nothing
  // is to do.
  void (*begin_gemm_int8)(int64_t rows, int64_t spans_per_block) = nullptr;
  void (*end_gemm_int8)() = nullptr;
};

// The kernels for an instruction set, or for the best one below it.
const LutMatMulKernels& LutMatMulKernelsFor(Isa isa);

// The instruction set of those kernels.
Isa LutMatMulIsaFor(Isa isa);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_H_
