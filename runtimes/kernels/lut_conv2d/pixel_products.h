// The inner loops of the int8 convolution: what an instruction set implements.
//
// Lanes are pixels. An image lies in memory as *quads*, four channels of a pixel in four bytes, a plane of pixels for each quad, so
// that a vector holds four channels of neighbouring pixels; a weight's four bytes are broadcast to all of them. Sums then leave in
// the order of the output's rows and nothing is transposed, neither when the input is quantised nor when results are stored; what a
// tap needs lies a fixed number of bytes away from what the first one needs (shifted_image.h).
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_H_

#include <cstdint>

#include "core/isa.h"
#include "kernels/lut/lut_layout.h"

namespace edgecomp {

constexpr int kQuadBytes = 4;  // channels of a quad, and of a weight's dword in a panel

// What a kernel may read of an image, and write of results, past the last pixel: it works on whole vectors, of which it takes
// several at once.
constexpr int64_t kPixelSlack = 64;

// Pixels and rows of which results are written at once in all variants' whole steps.
constexpr int64_t kPixelsWritten = 16, kRowsWritten = 8;

// Values that an image has: their extremes, 0 included, and 0 or, where one of them is no finite number, NaN.
struct ValueRange {
  float least, most, not_finite;
};

// The grid of an image: q = round_half_even(x * inverse) + zero, at most 255.
struct ImageGrid {
  float inverse;
  int32_t zero;
};

// The decoded weights of a tile of rows and what belongs to them.
struct PixelTile {
  const uint8_t* panel;    // int8 [groups][16 rows][4]
  const int64_t* offsets;  // [groups]: bytes from a pixel's place to the quad that a group is multiplied by
  const int64_t* ends;     // [1 + blocks]: 0, then the groups up to the end of each block
  int64_t blocks;
  const int32_t* starts;  // [blocks][16]: what the sums start at
  const float* scales;    // [blocks][16]: of a block's sums
  const float* bias;      // [16]
  int64_t rows;           // of the 16 that are wanted
  bool relu;
};

struct PixelProductsKernels {
  // Bytes of an image are q less this, 0 or 128: whether an instruction set multiplies unsigned or signed ones by signed weights.
  int32_t byte_offset;
  // Extends the range by x.
  void (*extend_range)(const float* x, int64_t count, ValueRange* range);
  // Quads of `count` pixels, of the 1 to 4 channels that are channel_stride apart; channels that are missing are 0 on the grid.
  void (*quantize)(const float* x, int64_t channel_stride, int64_t channels, int64_t count, ImageGrid grid, uint8_t* quads);
  // sums[r] = the sum of the weights of row r of `groups` groups of a panel.
  void (*sum_rows)(const uint8_t* panel, int64_t groups, int32_t* sums);
  // out[r * out_stride + i] = bias + sum over blocks of float(start + sum of products) * scale, for i < count, where pixel i is
  // kQuadBytes * i behind `pixels`; in the order of blocks, each by a fused multiply-add: the same bits in every variant. ReLU
  // makes 0 of what is less. Rows are written up to a multiple of kRowsWritten and pixels up to one of kPixelsWritten.
  void (*multiply)(const PixelTile& tile, const uint8_t* pixels, int64_t count, float* out, int64_t out_stride);
  // The largest magnitude of weights that `multiply` takes, and kernels for larger ones that differ in it alone, or null.
  int32_t largest_weight = 127;
  const PixelProductsKernels* larger_weights = nullptr;
};

const PixelProductsKernels& PixelProductsFor(Isa isa);
Isa PixelProductsIsaFor(Isa isa);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_PIXEL_PRODUCTS_H_
