// The public functions of lut_conv2d, the tiles of its int8 convolution, and the float one of one group: a product of output pixels
// by the factor.
#include "kernels/lut_conv2d/lut_conv2d.h"

#include <cstring>

#include "core/checked_math.h"
#include "kernels/lut_conv2d/pixel_products.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp {
namespace {

// Row m of the product is what output pixel m sees of an image: columns (kernel row, kernel column, channel).
struct PixelRows {
  const Conv2dGeometry* geometry;
  const float* image;  // [in_channels, height, width]

  static const float* Row(const void* self, int64_t m, float* columns) {
    const auto* rows = static_cast<const PixelRows*>(self);
    const Conv2dGeometry& g = *rows->geometry;
    const ec_conv2d& c = g.conv;
    const int64_t top = m / g.out_width * c.stride_h - c.pad_top;
    const int64_t left = m % g.out_width * c.stride_w - c.pad_left;
    float* to = columns;
    for (int64_t tap_y = 0; tap_y < c.kernel_h; ++tap_y) {
      for (int64_t tap_x = 0; tap_x < c.kernel_w; ++tap_x, to += g.padded_channels) {
        const int64_t y = top + tap_y * c.dilation_h;
        const int64_t x = left + tap_x * c.dilation_w;
        const bool inside = y >= 0 && y < c.height && x >= 0 && x < c.width;
        const int64_t channels = inside ? g.group_channels : 0;
        const float* pixel = rows->image + (inside ? y * c.width + x : 0);
        for (int64_t channel = 0; channel < channels; ++channel) to[channel] = pixel[channel * g.in_pixels()];
        std::memset(to + channels, 0, static_cast<size_t>(g.padded_channels - channels) * sizeof(float));
      }
    }
    return columns;
  }
};

int32_t DecodeTile(const void* context, int64_t tile, uint8_t* panel, float* scales, float* row_scale) {
  const auto& [factor, layout, kernels] = *static_cast<const LutTiles*>(context);
  const int8_t* codebook = factor->codebooks + factor->tile_book[tile] * layout->entries;
  const int8_t* tile_scales = factor->scales + tile * layout->blocks * kTileRows;
  LutTables tables;
  tables.largest = INT8_MAX;
  if (layout->planes < 8) MakeLutTables(codebook, layout->planes, &tables);
  kernels->decode[layout->planes]({factor->codes + tile * layout->tile_code_bytes(), tile_scales, codebook, &tables}, layout->spans,
                                  Panel::kPlain, panel);
  for (int64_t i = 0; i < layout->blocks * kTileRows; ++i) scales[i] = static_cast<float>(tile_scales[i]);
  std::memcpy(row_scale, factor->row_scale + tile * kTileRows, kTileRows * sizeof(float));
  return tables.largest;
}

}  // namespace

TileSource TilesOf(const LutTiles& tiles, const Conv2dGeometry& geometry) {
  const ec_lut_factor& factor = *tiles.factor;
  return {&tiles,
          DecodeTile,
          factor.n,
          tiles.layout->tiles,
          tiles.layout->blocks,
          factor.block_size / kQuadBytes,
          geometry.padded_channels / kQuadBytes,
          factor.row_index};
}

ec_status PlanConv2d(const ec_lut_factor* factor, const ec_conv2d* conv, const ec_epilogue* epilogue, ec_compute compute,
                     const ec_parallel* parallel, Conv2dPlan* plan) {
  LutLayout& layout = plan->layout;
  ec_status status = CheckedLutLayout(factor, &layout);
  if (status == EC_OK) status = MakeConv2dGeometry(factor->n, factor->k, kSpanColumns, conv, &plan->geometry);
  if (status == EC_OK) status = CheckEpilogue(epilogue, factor->n);
  if (status != EC_OK) return status;
  if (epilogue != nullptr && epilogue->gated != 0) return EC_ERR_ATTRIBUTE;
  if (compute != EC_COMPUTE_FLOAT && compute != EC_COMPUTE_INT8) return EC_ERR_COMPUTE;
  plan->compute = compute;
  if (compute == EC_COMPUTE_INT8) {
    const LutTiles tiles = {factor, &layout, nullptr};
    status = PlanInt8Conv2d(TilesOf(tiles, plan->geometry), &plan->geometry, parallel, &plan->int8);
    plan->workspace_bytes = plan->int8.workspace_bytes;
    return status;
  }
  if (conv->group > 1) return GroupedConv2dWorkspace(layout, parallel, &plan->workspace_bytes);
  status = MakeLutMatMulPlan(*factor, layout, plan->geometry.out_pixels(), compute, parallel, /*needs_scratch=*/true,
                             /*gated=*/false, &plan->product);
  plan->workspace_bytes = plan->product.workspace_bytes;
  return status;
}

ec_status RunConv2d(const ec_lut_factor& factor, const Conv2dPlan& plan, const float* x, const ec_epilogue* epilogue, float* y,
                    const ec_parallel* parallel, void* workspace, size_t workspace_bytes) {
  Isa isa;
  const ec_status status = SelectedIsa(&isa);
  if (status != EC_OK) return status;
  const Conv2dGeometry& geometry = plan.geometry;
  const ec_conv2d& conv = geometry.conv;
  if (geometry.empty()) return EC_OK;
  if ((x == nullptr && geometry.in_pixels() > 0) || y == nullptr) return EC_ERR_NULL_POINTER;
  if (workspace == nullptr || workspace_bytes < plan.workspace_bytes) return EC_ERR_WORKSPACE;

  const LutMatMulKernels& kernels = LutMatMulKernelsFor(isa);
  const ec_epilogue none = {sizeof(none), nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  const ec_epilogue& e = epilogue != nullptr ? *epilogue : none;
  if (plan.compute == EC_COMPUTE_INT8) {
    const LutTiles tiles = {&factor, &plan.layout, &kernels};
    RunInt8Conv2d(TilesOf(tiles, geometry), geometry, plan.int8, PixelProductsFor(isa), kernels, x, e, y, parallel, workspace);
    return EC_OK;
  }
  if (conv.group > 1) {
    RunGroupedConv2d(factor, plan.layout, geometry, x, e, kernels, y, parallel, workspace);
    return EC_OK;
  }
  const int64_t pixels = geometry.out_pixels();
  for (int64_t image = 0; image < conv.batch; ++image) {
    const PixelRows rows = {&geometry, x + image * conv.in_channels * geometry.in_pixels()};
    const int64_t first = image * factor.n * pixels;
    const ProductSink sink = {y + first, 1, pixels, e.bias, e.addend != nullptr ? e.addend + first : nullptr, 1, e.activation};
    RunLutMatMul(kernels, plan.product, factor, {&rows, PixelRows::Row, true}, pixels, sink, parallel, workspace);
  }
  return EC_OK;
}

}  // namespace edgecomp

ec_status ec_lut_conv2d_workspace_bytes(const ec_lut_factor* factor, const ec_conv2d* conv, ec_compute compute,
                                        const ec_parallel* parallel, size_t* bytes) {
  if (bytes == nullptr) return EC_ERR_NULL_POINTER;
  edgecomp::Conv2dPlan plan;
  const ec_status status = edgecomp::PlanConv2d(factor, conv, nullptr, compute, parallel, &plan);
  if (status == EC_OK) *bytes = plan.workspace_bytes;
  return status;
}

ec_status ec_lut_conv2d(const ec_lut_factor* factor, const ec_conv2d* conv, const float* x, const ec_epilogue* epilogue, float* y,
                        ec_compute compute, const ec_parallel* parallel, void* workspace, size_t workspace_bytes) {
  edgecomp::Conv2dPlan plan;
  const ec_status status = edgecomp::PlanConv2d(factor, conv, epilogue, compute, parallel, &plan);
  if (status != EC_OK) return status;
  return edgecomp::RunConv2d(*factor, plan, x, epilogue, y, parallel, workspace, workspace_bytes);
}
