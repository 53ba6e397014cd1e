#include "kernels/lut/lut_row.h"

#include "kernels/lut/lut_codes.h"

namespace edgecomp {

void DecodeLane(const ec_lut_factor& factor, const LutLayout& layout, int64_t lane, float* weights) {
  const int64_t tile = lane / kTileRows;
  const int row = static_cast<int>(lane % kTileRows);
  const uint8_t* span_codes = factor.codes + tile * layout.tile_code_bytes();
  const int8_t* codebook = factor.codebooks + factor.tile_book[tile] * layout.entries;
  const int8_t* scales = factor.scales + tile * layout.blocks * kTileRows + row;
  const float row_scale = factor.row_scale[lane];
  for (int64_t span = 0; span < layout.spans; ++span, span_codes += layout.planes * kPlaneBytes) {
    // Weights are value * (scale * row_scale), in this order: the oracle's rounding.
    const float step = static_cast<float>(scales[span / layout.spans_per_block * kTileRows]) * row_scale;
    CodeWord words[kColumnGroups];
    ReadSpanCodes(span_codes, layout.planes, row, words);
    const int64_t first = span * kSpanColumns;
    const int64_t columns = factor.k - first < kSpanColumns ? factor.k - first : kSpanColumns;
    for (int64_t column = 0; column < columns; ++column) {
      const uint8_t code = CodeAt(words[column / 4], static_cast<int>(column % 4));
      weights[first + column] = static_cast<float>(codebook[code]) * step;
    }
  }
}

}  // namespace edgecomp
