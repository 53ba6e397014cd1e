#include "kernels/lut_matmul/lut_matmul_driver.h"

#include <cstring>

#include "core/checked_math.h"
#include "core/workspace.h"

namespace edgecomp {
namespace {

// Less is not worth handing to another thread: a few microseconds of work.
constexpr int64_t kLeastMultiplicationsOfTask = 1 << 18;
constexpr int64_t kRowsOfPreparation = 8;

// The tiles of a factor. Most factors have one codebook, or few changes of it: tables are made where it changes.
class Tiles {
 public:
  Tiles(const ec_lut_factor& factor, const LutLayout& layout) : factor_(factor), layout_(layout) {}
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // Valid until the next call.
  LutTile At(int64_t tile) {
    const uint16_t book = factor_.tile_book[tile];
    const int8_t* codebook = factor_.codebooks + book * layout_.entries;
    if (book != tables_of_book_) {
      if (layout_.planes < 8) MakeLutTables(codebook, layout_.planes, &tables_);
      tables_of_book_ = book;
    }
    return {factor_.codes + tile * layout_.tile_code_bytes(), factor_.scales + tile * layout_.blocks * kTileRows, codebook,
            &tables_};
  }

 private:
  const ec_lut_factor& factor_;
  const LutLayout& layout_;
  LutTables tables_;
  int32_t tables_of_book_ = -1;
};

// One call of RunLutMatMul, for up to rows_at_once rows.
class Product {
 public:
  Product(const LutMatMulKernels& kernels, const LutMatMulPlan& plan, const ec_lut_factor& factor, const RowSource& source,
          const ProductSink& sink, int64_t first_row, int64_t rows, uint8_t* workspace)
      : kernels_(kernels),
        plan_(plan),
        layout_(plan.layout),
        factor_(factor),
        source_(source),
        sink_(sink),
        first_row_(first_row),
        rows_(rows),
        workspace_(workspace) {}

  void Run(const ec_parallel* parallel) const {
    const int64_t preparations = CeilDiv(rows_, kRowsOfPreparation);
    const int64_t preparing_tasks = Least(plan_.max_tasks, preparations);
    UnitsLeft to_prepare(preparations, preparing_tasks);
    ParallelFor(parallel, preparing_tasks, [&](int64_t task) { Prepare(to_prepare, task); });

    // By tiles first, since a unit that has all rows decodes each of its panels once; by rows where there are few tiles.
    const int64_t multiplications = rows_ * layout_.tiles * kTileRows * layout_.padded_k;
    const int64_t tasks = Least(plan_.max_tasks, CeilDiv(multiplications, kLeastMultiplicationsOfTask));
    const int64_t tile_parts = Least(tasks, TilesOfUnits());
    const int64_t row_parts = Least(tasks / tile_parts, RowGroups());
    UnitsLeft to_multiply(tile_parts * row_parts, tile_parts * row_parts);
    ParallelFor(parallel, tile_parts * row_parts, [&](int64_t task) { Multiply(to_multiply, tile_parts, row_parts, task); });
    if (plan_.gated && !plan_.paired) {
      const int64_t gating_tasks = Least(plan_.max_tasks, rows_);
      ParallelFor(parallel, gating_tasks, [&](int64_t task) { GateRows(PartOf(rows_, gating_tasks, task)); });
    }
  }

 private:
  static int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

  // Tiles that units are cut from: of the first half where a task multiplies those of the second beside them.
  int64_t TilesOfUnits() const { return plan_.paired ? layout_.tiles / 2 : layout_.tiles; }

  // Rows that fill no group belong to the last one.
  int64_t RowGroups() const { return rows_ < kRowGroup ? 1 : rows_ / kRowGroup; }

  // So few rows of int8 compute that they are multiplied straight from the planes.
  bool TakesDirect(int64_t rows) const { return rows <= kMostDirectRows && kernels_.direct_int8[layout_.planes] != nullptr; }

  bool int8() const { return plan_.compute == EC_COMPUTE_INT8; }
  uint8_t* TaskMemory(int64_t task) const { return workspace_ + plan_.tasks + static_cast<size_t>(task) * plan_.task_bytes; }
  float* steps() const { return reinterpret_cast<float*>(workspace_ + plan_.steps); }
  int32_t* minus_sums() const { return reinterpret_cast<int32_t*>(workspace_ + plan_.minus_sums); }

  BlockCount ChunkAt(int64_t first_block) const {
    const int64_t blocks = Least(plan_.blocks_per_chunk, layout_.blocks - first_block);
    return {blocks, layout_.spans_per_block, blocks * factor_.block_size};
  }
  // Index in the prepared x of row m of the chunk that starts at a block.
  int64_t ValueIndex(int64_t first_block, int64_t m) const {
    return first_block * factor_.block_size * rows_ + m * ChunkAt(first_block).columns;
  }

  void Prepare(UnitsLeft& units, int64_t task) const {
    float* scratch = source_.needs_scratch ? reinterpret_cast<float*>(TaskMemory(task)) : nullptr;
    for (int64_t unit; units.Take(task, &unit);) {
      const int64_t end = Least((unit + 1) * kRowsOfPreparation, rows_);
      for (int64_t m = unit * kRowsOfPreparation; m < end; ++m) {
        const float* x = source_.row(source_.context, first_row_ + m, scratch);
        for (int64_t b = 0; b < layout_.blocks; b += plan_.blocks_per_chunk) PrepareChunk(x, m, b);
      }
    }
  }

  void PrepareChunk(const float* x, int64_t m, int64_t first_block) const {
    const int64_t block_size = factor_.block_size;
    const int64_t last_block = first_block + ChunkAt(first_block).blocks;
    int64_t to = ValueIndex(first_block, m);
    for (int64_t b = first_block; b < last_block; ++b, to += block_size) {
      const int64_t first = b * block_size;
      const int64_t count = Least(block_size, factor_.k - first);
      if (int8()) {
        kernels_.quantize_block(x + first, count, block_size, reinterpret_cast<int8_t*>(workspace_ + plan_.values) + to,
                                steps() + b * rows_ + m, minus_sums() + b * rows_ + m);
      } else {
        float* values = reinterpret_cast<float*>(workspace_ + plan_.values) + to;
        std::memcpy(values, x + first, static_cast<size_t>(count) * sizeof(float));
        std::memset(values + count, 0, static_cast<size_t>(block_size - count) * sizeof(float));
      }
    }
  }

  void Multiply(UnitsLeft& units, int64_t tile_parts, int64_t row_parts, int64_t task) const {
    Tiles sequence(factor_, layout_), second_half(factor_, layout_);
    int64_t begun_rows = 0;
    for (int64_t unit; units.Take(task, &unit);) {
      const Range tiles = PartOf(TilesOfUnits(), tile_parts, unit / row_parts);
      if (int8() && rows_ == 1 && TakesDirect(1)) {
        MultiplyOneRow(tiles, sequence, second_half);
        continue;
      }
      const Range groups = PartOf(RowGroups(), row_parts, unit % row_parts);
      const Range rows = {groups.first * kRowGroup, groups.last == RowGroups() ? rows_ : groups.last * kRowGroup};
      const int64_t count = rows.last - rows.first;
      if (int8() && kernels_.begin_gemm_int8 != nullptr && !TakesDirect(count) && count != begun_rows) {
        kernels_.begin_gemm_int8(count, layout_.spans_per_block);
        begun_rows = count;
      }
      MultiplyRows(tiles, rows, sequence, second_half, TaskMemory(task));
    }
    if (begun_rows != 0) kernels_.end_gemm_int8();
  }

  void MultiplyRows(Range tiles, Range rows, Tiles& sequence, Tiles& second_half, uint8_t* panel) const {
    float* sums = reinterpret_cast<float*>(panel + plan_.panel_bytes);
    float* second_sums = sums + (rows.last - rows.first) * kTileRows;
    for (int64_t t = tiles.first; t < tiles.last; ++t) {
      MultiplyTile(sequence.At(t), rows, panel, sums);
      if (!plan_.paired) {
        Store(t, rows, sums);
        continue;
      }
      MultiplyTile(second_half.At(t + TilesOfUnits()), rows, panel, second_sums);
      StoreGated(t, rows, sums, second_sums);
    }
  }

  void MultiplyTile(const LutTile& tile, Range rows, uint8_t* panel, float* sums) const {
    std::memset(sums, 0, static_cast<size_t>(rows.last - rows.first) * kTileRows * sizeof(float));
    if (int8()) {
      MultiplyInt8(tile, rows, panel, sums);
    } else {
      MultiplyFloat(tile, rows, panel, sums);
    }
  }

  // A single row lies in one piece: no need for chunks.
  void MultiplyOneRow(Range tiles, Tiles& sequence, Tiles& second_half) const {
    const QuantizedRows x = {reinterpret_cast<const int8_t*>(workspace_ + plan_.values), steps(), minus_sums(), 1};
    const BlockCount all = {layout_.blocks, layout_.spans_per_block, layout_.padded_k};
    const auto multiply = [&](const LutTile& tile, float* sums) {
      Int8KernelsOf(tile).direct_int8[layout_.planes](tile, x, 1, all, sums);
    };
    for (int64_t t = tiles.first; t < tiles.last; ++t) {
      float sums[kTileRows] = {};
      multiply(sequence.At(t), sums);
      if (!plan_.paired) {
        Store(t, {0, 1}, sums);
        continue;
      }
      float second_sums[kTileRows] = {};
      multiply(second_half.At(t + TilesOfUnits()), second_sums);
      StoreGated(t, {0, 1}, sums, second_sums);
    }
  }

  const LutMatMulKernels& Int8KernelsOf(const LutTile& tile) const {
    const LutMatMulKernels* kernels = &kernels_;
    if (layout_.planes == 8) return *kernels;
    while (kernels->small_entries != nullptr && tile.tables->largest <= kernels->small_entries->largest_entry) {
      kernels = kernels->small_entries;
    }
    return *kernels;
  }

  LutTile FromBlock(const LutTile& tile, int64_t block) const {
    return {tile.codes + block * layout_.spans_per_block * layout_.planes * kPlaneBytes, tile.scales + block * kTileRows,
            tile.codebook, tile.tables};
  }

  // sums[m - rows.first][16] += x[m] . w, in chunks.
  void MultiplyInt8(const LutTile& tile, Range rows, uint8_t* panel, float* sums) const {
    const int64_t count = rows.last - rows.first;
    const LutMatMulKernels& kernels = Int8KernelsOf(tile);
    const auto direct = TakesDirect(count) ? kernels.direct_int8[layout_.planes] : nullptr;
    for (int64_t b = 0; b < layout_.blocks; b += plan_.blocks_per_chunk) {
      const BlockCount chunk = ChunkAt(b);
      const LutTile from_chunk = FromBlock(tile, b);
      const int8_t* q = reinterpret_cast<const int8_t*>(workspace_ + plan_.values) + ValueIndex(b, rows.first);
      const int64_t first_step = b * rows_ + rows.first;
      const QuantizedRows x = {q, steps() + first_step, minus_sums() + first_step, rows_};
      if (direct != nullptr) {
        direct(from_chunk, x, count, chunk, sums);
      } else {
        kernels.decode[layout_.planes](from_chunk, chunk.blocks * chunk.spans_per_block, Panel::kInt8, panel);
        kernels.gemm_int8(panel, from_chunk.scales, x, count, chunk, sums);
      }
    }
  }

  void MultiplyFloat(const LutTile& tile, Range rows, uint8_t* panel, float* sums) const {
    for (int64_t b = 0; b < layout_.blocks; b += plan_.blocks_per_chunk) {
      const BlockCount chunk = ChunkAt(b);
      const LutTile from_chunk = FromBlock(tile, b);
      const float* x = reinterpret_cast<const float*>(workspace_ + plan_.values) + ValueIndex(b, rows.first);
      kernels_.decode[layout_.planes](from_chunk, chunk.blocks * chunk.spans_per_block, Panel::kPlain, panel);
      kernels_.gemm_float(panel, from_chunk.scales, x, rows.last - rows.first, chunk, sums);
    }
  }

  // Where the products of a tile go is decided for whole tiles at their place in y, which cost least, and for all others.
  void Store(int64_t tile, Range rows, float* sums) const {
    const int64_t n = tile * kTileRows;
    const ec_activation activation = plan_.gated ? EC_ACTIVATION_NONE : sink_.activation;  // gated: see GateRows
    if (factor_.row_index == nullptr && sink_.column_stride == 1 && n + kTileRows <= factor_.n) {
      return kernels_.store_tile(activation, SumsOf(n, rows, sums), nullptr, rows.last - rows.first, RowOfY(rows.first) + n,
                                 RowStrideOfY());
    }
    FinishLanes(n, rows, sums);
    if (activation != EC_ACTIVATION_NONE) kernels_.activate(activation, sums, nullptr, sums, (rows.last - rows.first) * kTileRows);
    float* y = RowOfY(rows.first);
    for (int64_t m = rows.first; m < rows.last; ++m, sums += kTileRows, y += RowStrideOfY()) {
      for (int r = 0; r < kTileRows; ++r) {
        const int64_t row = RowOfLane(factor_, n + r);
        if (row >= 0) y[row * sink_.column_stride] = sums[r];
      }
    }
  }

  // Two whole tiles, a half of y apart.
  void StoreGated(int64_t tile, Range rows, const float* gates, const float* values) const {
    const int64_t n = tile * kTileRows;
    const TileSums second = SumsOf(n + factor_.n / 2, rows, values);
    kernels_.store_tile(sink_.activation, SumsOf(n, rows, gates), &second, rows.last - rows.first, RowOfY(rows.first) + n,
                        RowStrideOfY());
  }

  // Rows of products whose halves lie in different tasks' tiles.
  void GateRows(Range rows) const {
    const int64_t half = factor_.n / 2;
    for (int64_t m = rows.first; m < rows.last; ++m) {
      const float* z = RowOfY(m);
      kernels_.activate(sink_.activation, z, z + half, sink_.y + (first_row_ + m) * sink_.row_stride, half);
    }
  }

  // Row m of y, or of the products that are still to be gated.
  float* RowOfY(int64_t m) const {
    if (plan_.gated && !plan_.paired) return reinterpret_cast<float*>(workspace_ + plan_.products) + m * factor_.n;
    return sink_.y + (first_row_ + m) * sink_.row_stride;
  }
  int64_t RowStrideOfY() const { return plan_.gated && !plan_.paired ? factor_.n : sink_.row_stride; }

  const float* AddendOf(int64_t m) const {
    return sink_.addend == nullptr ? nullptr : sink_.addend + (first_row_ + m) * sink_.addend_row_stride;
  }

  // sums[m][16] to sum * row_scale + bias + addend, of the lanes of the tile that starts at lane n.
  void FinishLanes(int64_t n, Range rows, float* sums) const {
    for (int64_t m = rows.first; m < rows.last; ++m, sums += kTileRows) {
      const float* addend = AddendOf(m);
      for (int r = 0; r < kTileRows; ++r) {
        const int64_t row = RowOfLane(factor_, n + r);
        if (row < 0) continue;
        float z = sums[r] * factor_.row_scale[n + r];
        if (sink_.bias != nullptr) z += sink_.bias[row];
        if (addend != nullptr) z += addend[row * sink_.column_stride];
        sums[r] = z;
      }
    }
  }

  // The sums of a whole tile that starts at row n of the matrix.
  TileSums SumsOf(int64_t n, Range rows, const float* sums) const {
    return {sums, factor_.row_scale + n, sink_.bias != nullptr ? sink_.bias + n : nullptr,
            sink_.addend != nullptr ? AddendOf(rows.first) + n : nullptr, sink_.addend_row_stride};
  }

  const LutMatMulKernels& kernels_;
  const LutMatMulPlan& plan_;
  const LutLayout& layout_;
  const ec_lut_factor& factor_;
  const RowSource& source_;
  const ProductSink& sink_;
  int64_t first_row_;
  int64_t rows_;
  uint8_t* workspace_;
};

}  // namespace

void RunLutMatMul(const LutMatMulKernels& kernels, const LutMatMulPlan& plan, const ec_lut_factor& factor, const RowSource& source,
                  int64_t rows, const ProductSink& sink, const ec_parallel* parallel, void* workspace) {
  uint8_t* aligned = FirstLine(workspace);
  for (int64_t m = 0; m < rows; m += plan.rows_at_once) {
    const int64_t count = rows - m < plan.rows_at_once ? rows - m : plan.rows_at_once;
    Product(kernels, plan, factor, source, sink, m, count, aligned).Run(parallel);
  }
}

}  // namespace edgecomp
