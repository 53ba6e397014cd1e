// AVX-512 with VBMI and the matrix unit, AMX: Sapphire Rapids onwards. A few rows of x run as without it; of many rows, an
// instruction multiplies 16 by the 16 rows of the tile, 32 or 64 columns. A block's sums leave through memory for vector registers,
// which apply its scales.
//
// A panel has the layout that the unit wants, groups of 4 columns of 16 rows. Both sides are signed: no offset.
#include "kernels/lut_matmul/lut_matmul_avx512_vbmi.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAmx;

namespace {

struct Amx : Avx512Vbmi<Amx> {};
using Base = LutMatMulSimd<Amx, /*kPanelOffset=*/0>;

constexpr int kRowsAtOnce = 16;

// Blocks of an even number of spans take two at a time, which costs the unit no more than one.
int64_t SpansAtOnce(int64_t spans_per_block) { return spans_per_block % 2 == 0 ? 2 : 1; }

// What ldtilecfg reads.
struct TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64, "the architecture's size");

// Registers of the unit, "tiles" in Intel's language: rows of x and their sums, of which two take turns, one being multiplied while
// the other leaves.
struct WholeRows {
  static constexpr int kX = 0, kSums[2] = {2, 3};
};
struct RowsLeft {
  static constexpr int kX = 4, kSums[2] = {5, 6};
};
constexpr int kWeights = 1;

void BeginGemmInt8(int64_t rows, int64_t spans_per_block) {
  const int64_t spans = SpansAtOnce(spans_per_block);
  TileConfig config = {};
  config.palette = 1;
  const auto set = [&config](int tile, int64_t tile_rows, int64_t column_bytes) {
    config.rows[tile] = static_cast<uint8_t>(tile_rows);
    config.column_bytes[tile] = static_cast<uint16_t>(tile_rows == 0 ? 0 : column_bytes);
  };
  const auto set_rows = [&](auto tiles, int64_t tile_rows) {
    set(tiles.kX, tile_rows, spans * kSpanColumns);
    for (const int sums : tiles.kSums) set(sums, tile_rows, kPlaneBytes);
  };
  set(kWeights, spans * kColumnGroups, kPlaneBytes);
  set_rows(WholeRows{}, kRowsAtOnce);
  set_rows(RowsLeft{}, rows % kRowsAtOnce);
  asm volatile("ldtilecfg %0" : : "m"(config));
}

// Without it every context switch would save the tiles.
void EndGemmInt8() { asm volatile("tilerelease"); }

// The instructions, since the compilers' intrinsics are macros that take the numbers of tiles as literals.
template <int kTile>
EC_INLINE void LoadTile(const void* from, int64_t row_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(row_bytes), "i"(kTile) : "memory");
}
template <int kTile>
EC_INLINE void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kSums, int kX>
EC_INLINE void AddProduct() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kX), "i"(kWeights));
}
template <int kTile>
EC_INLINE void StoreTile(void* to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(int64_t{kPlaneBytes}), "i"(kTile) : "memory");
}

// Where the next block starts.
struct BlockCursor {
  const int8_t* q;
  const uint8_t* weights;
  int64_t row_bytes;  // of q
  int64_t spans_per_block;
};

using BlockSums = int32_t[kRowsAtOnce][kTileRows];

// Which rows are multiplied: 16, then the rows that are left, or one of the two.
template <bool kWhole, bool kLeft>
struct Rows {
  template <int kTurn>
  static EC_INLINE void MultiplyBlock(BlockCursor& next) {
    const int64_t spans = SpansAtOnce(next.spans_per_block);
    if constexpr (kWhole) ZeroTile<WholeRows::kSums[kTurn]>();
    if constexpr (kLeft) ZeroTile<RowsLeft::kSums[kTurn]>();
    for (int64_t s = 0; s < next.spans_per_block; s += spans) {
      LoadTile<kWeights>(next.weights, kPlaneBytes);
      if constexpr (kWhole) {
        LoadTile<WholeRows::kX>(next.q, next.row_bytes);
        AddProduct<WholeRows::kSums[kTurn], WholeRows::kX>();
      }
      if constexpr (kLeft) {
        LoadTile<RowsLeft::kX>(next.q + (kWhole ? kRowsAtOnce * next.row_bytes : 0), next.row_bytes);
        AddProduct<RowsLeft::kSums[kTurn], RowsLeft::kX>();
      }
      next.q += spans * kSpanColumns;
      next.weights += spans * kColumnGroups * kPlaneBytes;
    }
  }

  template <int kTurn>
  static EC_INLINE void StoreSums(BlockSums (&sums)[2]) {
    if constexpr (kWhole) StoreTile<WholeRows::kSums[kTurn]>(sums[0]);
    if constexpr (kLeft) StoreTile<RowsLeft::kSums[kTurn]>(sums[1]);
  }

  // Calls use(whole rows' sums, left rows' sums) for each block. The unit is a block ahead: its results take long to arrive, and
  // what waits for them would fill the scheduler.
  template <class Use>
  static EC_INLINE void ForEachBlock(const uint8_t* panel, const QuantizedRows& x, const BlockCount& count, const Use& use) {
    alignas(64) BlockSums sums[2][2];
    BlockCursor next = {x.q, panel, count.columns, count.spans_per_block};
    MultiplyBlock<0>(next);
    int64_t left = count.blocks - 1;
    for (; left >= 2; left -= 2) {
      MultiplyBlock<1>(next);
      StoreSums<0>(sums[0]);
      use(sums[0][0], sums[0][1]);
      MultiplyBlock<0>(next);
      StoreSums<1>(sums[1]);
      use(sums[1][0], sums[1][1]);
    }
    if (left == 1) MultiplyBlock<1>(next);
    StoreSums<0>(sums[0]);
    use(sums[0][0], sums[0][1]);
    if (left == 0) return;
    StoreSums<1>(sums[1]);
    use(sums[1][0], sums[1][1]);
  }
};

EC_INLINE __m512 AddScaled(__m512 total, const int32_t* sums, __m512 scales, float step) {
  return Amx::AddScaled(total, Amx::ToFloats(_mm512_load_si512(sums)), scales, step);
}

// The totals of 16 rows stay in registers, those of the rows left in memory.
template <bool kWhole, bool kLeft>
void MultiplyRows(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows_left, BlockCount count,
                  float* sums) {
  __m512 total[kRowsAtOnce];
  if constexpr (kWhole) {
    Unroll<Amx, kRowsAtOnce>([&](auto m) EC_LAMBDA_INLINE { total[m] = _mm512_loadu_ps(sums + m * kTileRows); });
  }
  constexpr int kFirstLeft = kWhole ? kRowsAtOnce : 0;
  const float* step = x.step;
  Rows<kWhole, kLeft>::ForEachBlock(panel, x, count, [&](const BlockSums& whole, const BlockSums& left) EC_LAMBDA_INLINE {
    const __m512 block_scales = Amx::Scales(scales);
    if constexpr (kWhole) {
      Unroll<Amx, kRowsAtOnce>([&](auto m) EC_LAMBDA_INLINE { total[m] = AddScaled(total[m], whole[m], block_scales, step[m]); });
    }
    for (int64_t m = 0; kLeft && m < rows_left; ++m) {
      float* to = sums + (kFirstLeft + m) * kTileRows;
      _mm512_storeu_ps(to, AddScaled(_mm512_loadu_ps(to), left[m], block_scales, step[kFirstLeft + m]));
    }
    scales += kTileRows;
    step += x.stride;
  });
  if constexpr (kWhole) {
    Unroll<Amx, kRowsAtOnce>([&](auto m) EC_LAMBDA_INLINE { _mm512_storeu_ps(sums + m * kTileRows, total[m]); });
  }
}

void GemmInt8(const uint8_t* panel, const int8_t* scales, const QuantizedRows& x, int64_t rows, BlockCount count, float* sums) {
  const int64_t left = rows % kRowsAtOnce;
  if (rows < kRowsAtOnce) return MultiplyRows<false, true>(panel, scales, x, left, count, sums);
  for (int64_t m = 0; m + kRowsAtOnce <= rows; m += kRowsAtOnce) {
    const QuantizedRows from_m = {x.q + m * count.columns, x.step + m, x.minus_sum + m, x.stride};
    const bool last = left != 0 && m + kRowsAtOnce + left == rows;
    const auto multiply = last ? MultiplyRows<true, true> : MultiplyRows<true, false>;
    multiply(panel, scales, from_m, left, count, sums + m * kTileRows);
  }
}

constexpr LutMatMulKernels Kernels() {
  LutMatMulKernels kernels = Base::Kernels();
  kernels.gemm_int8 = GemmInt8;
  kernels.begin_gemm_int8 = BeginGemmInt8;
  kernels.end_gemm_int8 = EndGemmInt8;
  return kernels;
}

}  // namespace

const LutMatMulKernels kLutMatMulAmx = Kernels();

}  // namespace edgecomp
