#include "kernels/lut/lut_layout.h"

#include "core/checked_math.h"

namespace edgecomp {

ec_status MakeLutLayout(const ec_lut_factor& factor, LutLayout* layout) {
  if (factor.size != sizeof(factor)) return EC_ERR_STRUCT_SIZE;
  if (factor.bits < 1 || factor.bits > 8) return EC_ERR_BITS;
  if (factor.n < 1 || factor.k < 1 || factor.tiles < 1) return EC_ERR_SHAPE;
  if (factor.n > INT32_MAX && factor.row_index != nullptr) return EC_ERR_SHAPE;
  if (factor.k > INT64_MAX - kSpanColumns) return EC_ERR_OVERFLOW;
  const bool wide = factor.bits >= 7;
  if (factor.books < 1 || factor.books > (wide ? 1 : kMaxBooks)) return EC_ERR_SHAPE;

  const int64_t fewest_tiles = CeilDiv(factor.n, kTileRows);
  if (factor.row_index == nullptr ? factor.tiles != fewest_tiles : factor.tiles < fewest_tiles) return EC_ERR_SHAPE;

  layout->tiles = factor.tiles;
  layout->planes = wide ? 8 : factor.bits;
  layout->entries = int64_t{1} << layout->planes;
  layout->spans = CeilDiv(factor.k, kSpanColumns);
  layout->padded_k = layout->spans * kSpanColumns;
  if (factor.block_size < kSpanColumns || factor.block_size > kMaxBlockSize || factor.block_size % kSpanColumns != 0 ||
      layout->padded_k % factor.block_size != 0) {
    return EC_ERR_BLOCK_SIZE;
  }
  layout->blocks = layout->padded_k / factor.block_size;
  layout->spans_per_block = factor.block_size / kSpanColumns;

  const CheckedSize tiles = layout->tiles;
  const CheckedSize lanes = tiles * kTileRows;
  const CheckedSize codes = tiles * layout->spans * layout->planes * kPlaneBytes;
  const CheckedSize scales = lanes * layout->blocks;
  const CheckedSize lane_words = lanes * int64_t{sizeof(float)};
  if (!codes.fits() || !scales.fits() || !lane_words.fits()) return EC_ERR_OVERFLOW;
  layout->bytes.codes = codes.value();
  layout->bytes.codebooks = static_cast<size_t>(factor.books * layout->entries);
  layout->bytes.tile_book = static_cast<size_t>(layout->tiles) * sizeof(uint16_t);
  layout->bytes.scales = scales.value();
  layout->bytes.row_scale = lane_words.value();
  layout->bytes.row_index = factor.row_index != nullptr ? lane_words.value() : 0;
  return EC_OK;
}

ec_status CheckedLutLayout(const ec_lut_factor* factor, LutLayout* layout) {
  if (factor == nullptr) return EC_ERR_NULL_POINTER;
  if (factor->size != sizeof(*factor)) return EC_ERR_STRUCT_SIZE;
  if (factor->codes == nullptr || factor->codebooks == nullptr || factor->tile_book == nullptr || factor->scales == nullptr ||
      factor->row_scale == nullptr) {
    return EC_ERR_NULL_POINTER;
  }
  return MakeLutLayout(*factor, layout);
}

}  // namespace edgecomp
