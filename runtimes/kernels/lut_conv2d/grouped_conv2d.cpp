// Grouped and depthwise convolutions: each output channel's weights are decoded once and run over its few input channels in float.
#include "core/checked_math.h"
#include "core/parallel.h"
#include "kernels/lut/lut_row.h"
#include "kernels/lut_conv2d/lut_conv2d.h"

namespace edgecomp {
namespace {

// Output columns [first, last) for which a tap at `offset` columns from the output's origin lies inside the image.
Range ColumnsInside(int64_t offset, const Conv2dGeometry& g) {
  const int64_t stride = g.conv.stride_w;
  const int64_t first = offset >= 0 ? 0 : CeilDiv(-offset, stride);
  const int64_t last = offset >= g.conv.width ? 0 : (g.conv.width - 1 - offset) / stride + 1;
  return {first, last < g.out_width ? last : g.out_width};
}

// One output channel of one image. `x` is the first input channel of the group.
void ConvolveChannel(const Conv2dGeometry& g, const float* x, const float* weights, float bias, float* y) {
  const ec_conv2d& c = g.conv;
  for (int64_t out_y = 0; out_y < g.out_height; ++out_y) {
    float* out_row = y + out_y * g.out_width;
    for (int64_t out_x = 0; out_x < g.out_width; ++out_x) out_row[out_x] = bias;
    for (int64_t tap = 0; tap < c.kernel_h * c.kernel_w; ++tap) {
      const int64_t in_y = out_y * c.stride_h - c.pad_top + tap / c.kernel_w * c.dilation_h;
      if (in_y < 0 || in_y >= c.height) continue;
      const int64_t offset = tap % c.kernel_w * c.dilation_w - c.pad_left;
      const Range columns = ColumnsInside(offset, g);
      for (int64_t channel = 0; channel < g.group_channels; ++channel) {
        const float weight = weights[tap * g.padded_channels + channel];
        const float* in_row = x + channel * g.in_pixels() + in_y * c.width;
        for (int64_t out_x = columns.first; out_x < columns.last; ++out_x)
          out_row[out_x] += weight * in_row[out_x * c.stride_w + offset];
      }
    }
  }
}

void Add(const float* addend, int64_t count, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] += addend[i];
}

}  // namespace

ec_status GroupedConv2dWorkspace(const LutLayout& layout, const ec_parallel* parallel, size_t* bytes) {
  const CheckedSize rows = CheckedSize(MaxTasks(parallel)) * layout.padded_k * int64_t{sizeof(float)} + int64_t{alignof(float)};
  *bytes = rows.value();
  return rows.fits() ? EC_OK : EC_ERR_OVERFLOW;
}

void RunGroupedConv2d(const ec_lut_factor& factor, const LutLayout& layout, const Conv2dGeometry& geometry, const float* x,
                      const ec_epilogue& epilogue, const LutMatMulKernels& kernels, float* y, const ec_parallel* parallel,
                      void* workspace) {
  constexpr uintptr_t kAlignment = alignof(float);
  auto* rows = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(workspace) + kAlignment - 1) / kAlignment * kAlignment);
  const int64_t lanes = layout.tiles * kTileRows;
  const int64_t most = MaxTasks(parallel);
  const int64_t tasks = lanes < most ? lanes : most;
  ParallelFor(parallel, tasks, [&](int64_t task) {
    float* weights = rows + task * layout.padded_k;
    const Range range = PartOf(lanes, tasks, task);
    for (int64_t lane = range.first; lane < range.last; ++lane) {
      const int64_t n = RowOfLane(factor, lane);
      if (n < 0) continue;
      DecodeLane(factor, layout, lane, weights);
      const int64_t first_channel = n / geometry.group_outputs * geometry.group_channels;
      for (int64_t image = 0; image < geometry.conv.batch; ++image) {
        const int64_t plane = (image * factor.n + n) * geometry.out_pixels();
        ConvolveChannel(geometry, x + (image * geometry.conv.in_channels + first_channel) * geometry.in_pixels(), weights,
                        epilogue.bias != nullptr ? epilogue.bias[n] : 0.0f, y + plane);
        if (epilogue.addend != nullptr) Add(epilogue.addend + plane, geometry.out_pixels(), y + plane);
        if (epilogue.activation != EC_ACTIVATION_NONE) {
          kernels.activate(epilogue.activation, y + plane, nullptr, y + plane, geometry.out_pixels());
        }
      }
    }
  });
}

}  // namespace edgecomp
