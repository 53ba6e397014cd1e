// lut_narrow_conv2d: the tiles of its int8 convolution, and the float one: all weights are decoded once, and run directly over
// padded copies of the input.
//
// A copy holds, for the channels of one group and a band of output rows, the input's rows and columns sorted by what remains when
// they are divided by the strides (phases). With rows of the same pitch as the outputs, output (row, column) at the index
// i = row * pitch + column needs of tap t the value at offset(t) + i: the band is one array of sums over shifted copies, whatever
// strides, dilations and paddings are. Columns between out_width and the pitch are computed for nothing.
#include <cstring>

#include "core/checked_math.h"
#include "core/parallel.h"
#include "core/workspace.h"
#include "kernels/lut_conv2d/conv2d_geometry.h"
#include "kernels/lut_conv2d/copy_floats.h"
#include "kernels/lut_conv2d/int8_conv2d.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"
#include "kernels/lut_narrow/lut_narrow.h"
#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {
namespace {

constexpr int64_t kBandBytes = 128 << 10;         // of a copy, to stay in a second-level cache
constexpr int64_t kDecodedByOneThread = 1 << 14;  // weights

// Phases of one axis, and how many values a phase has beyond those of the outputs.
struct Axis {
  int64_t stride, dilation, pad, kernel;
  int64_t phases() const { return stride < reach() + 1 ? stride : reach() + 1; }
  int64_t reach() const { return (kernel - 1) * dilation; }
  int64_t extra() const { return reach() / stride; }
};

struct NarrowPlan {
  LutNarrowLayout layout;
  Conv2dGeometry geometry;
  Axis rows, columns;
  int64_t pitch;
  int64_t band;  // output rows
  int64_t bands;
  int64_t plane;  // floats of a channel's copy of a band
  int64_t units;  // (group, image, band)
  int64_t tasks;
  int64_t copy_floats, out_floats;  // of a task
  int64_t out_stride;               // floats of an output's sums
  size_t offsets, weights, first_task;
  size_t workspace_bytes;

  int64_t copy_rows(int64_t band_rows) const { return band_rows + rows.extra(); }
};

ec_status MakePlan(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, const ec_parallel* parallel, NarrowPlan* plan) {
  ec_status status = CheckedLutNarrowLayout(factor, &plan->layout);
  if (status == EC_OK) status = MakeConv2dGeometry(factor->n, factor->k, /*channel_multiple=*/1, conv, &plan->geometry);
  if (status != EC_OK) return status;
  const Conv2dGeometry& g = plan->geometry;
  plan->rows = {conv->stride_h, conv->dilation_h, conv->pad_top, conv->kernel_h};
  plan->columns = {conv->stride_w, conv->dilation_w, conv->pad_left, conv->kernel_w};
  plan->pitch = g.out_width + plan->columns.extra();
  const CheckedSize row = CheckedSize(g.group_channels) * plan->rows.phases() * plan->columns.phases() * plan->pitch;
  if (!(row * int64_t{sizeof(float)}).fits()) return EC_ERR_OVERFLOW;
  const int64_t row_bytes = static_cast<int64_t>(row.value()) * int64_t{sizeof(float)};
  const int64_t fitting = row_bytes == 0 ? 1 : kBandBytes / row_bytes - plan->rows.extra();
  const int64_t most = g.out_height < 1 ? 1 : g.out_height;
  plan->band = fitting < 1 ? 1 : fitting < most ? fitting : most;
  plan->bands = CeilDiv(g.out_height, plan->band);
  const CheckedSize plane = CheckedSize(plan->rows.phases()) * plan->columns.phases() * plan->copy_rows(plan->band) * plan->pitch;
  const CheckedSize copy = plane * g.group_channels + kTapSlack;
  const CheckedSize out_row = CheckedSize(plan->band) * plan->pitch + kTapSlack;
  const CheckedSize out = out_row * (g.group_outputs < kTapOutputs ? g.group_outputs : kTapOutputs);
  const CheckedSize units = CheckedSize(conv->group) * conv->batch * plan->bands;
  if (!copy.fits() || !out.fits() || !units.fits()) return EC_ERR_OVERFLOW;
  plan->plane = static_cast<int64_t>(plane.value());
  plan->copy_floats = static_cast<int64_t>(copy.value());
  plan->out_stride = static_cast<int64_t>(out_row.value());
  plan->out_floats = static_cast<int64_t>(out.value());
  plan->units = static_cast<int64_t>(units.value());
  plan->tasks = plan->units < MaxTasks(parallel) ? plan->units : MaxTasks(parallel);

  const CheckedSize offset_bytes = CheckedSize(factor->k) * int64_t{sizeof(int64_t)};
  const CheckedSize weight_bytes = CheckedSize(plan->layout.weights) * int64_t{sizeof(float)};
  const CheckedSize task_bytes = (copy + out) * int64_t{sizeof(float)} * plan->tasks;
  const CheckedSize total = offset_bytes + weight_bytes + task_bytes + kWorkspaceAlignment;
  if (!total.fits()) return EC_ERR_OVERFLOW;
  plan->offsets = 0;
  plan->weights = offset_bytes.value();
  plan->first_task = plan->weights + weight_bytes.value();
  plan->workspace_bytes = total.value();
  return EC_OK;
}

// Where in a copy each tap's values begin, in the order of the factor's columns: (kernel row, kernel column, channel).
void FillOffsets(const NarrowPlan& plan, int64_t* offsets) {
  const int64_t band_rows = plan.copy_rows(plan.band);
  for (int64_t tap_y = 0; tap_y < plan.rows.kernel; ++tap_y) {
    const int64_t y = tap_y * plan.rows.dilation;
    for (int64_t tap_x = 0; tap_x < plan.columns.kernel; ++tap_x) {
      const int64_t x = tap_x * plan.columns.dilation;
      const int64_t phase = y % plan.rows.stride * plan.columns.phases() + x % plan.columns.stride;
      const int64_t offset = (phase * band_rows + y / plan.rows.stride) * plan.pitch + x / plan.columns.stride;
      for (int64_t channel = 0; channel < plan.geometry.group_channels; ++channel) *offsets++ = channel * plan.plane + offset;
    }
  }
}

// Columns [begin, end) of a phase's rows in the copy that lie inside the image.
Range ColumnsInside(const NarrowPlan& plan, int64_t phase) {
  const int64_t width = plan.geometry.conv.width, stride = plan.columns.stride, first = phase - plan.columns.pad;
  const int64_t begin = first >= 0 ? 0 : CeilDiv(-first, stride);
  const int64_t end = first >= width ? 0 : (width - 1 - first) / stride + 1;
  return {begin, end < plan.pitch ? end : plan.pitch};
}

// Every stride-th value.
void CopyColumns(const TapSumsKernels& kernels, const float* from, int64_t stride, int64_t count, float* to) {
  if (stride == 1) {
    CopyFloats(from, count, to);
  } else if (stride == 2) {
    kernels.copy_every_second(from, count, to);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = from[stride * i];
  }
}

// Fills in what lies inside the image, for the channels that begin at `x`; the padding around it is zero already.
void CopyBand(const NarrowPlan& plan, const TapSumsKernels& kernels, const float* x, int64_t first_row, float* copy) {
  const ec_conv2d& c = plan.geometry.conv;
  const int64_t rows = plan.copy_rows(plan.band);
  for (int64_t phase_x = 0; phase_x < plan.columns.phases(); ++phase_x) {
    const Range inside = ColumnsInside(plan, phase_x);
    if (inside.last <= inside.first) continue;
    const int64_t first_column = inside.first * c.stride_w + phase_x - c.pad_left;
    for (int64_t channel = 0; channel < plan.geometry.group_channels; ++channel) {
      for (int64_t phase_y = 0; phase_y < plan.rows.phases(); ++phase_y) {
        float* to = copy + channel * plan.plane + (phase_y * plan.columns.phases() + phase_x) * rows * plan.pitch + inside.first;
        int64_t y = first_row * c.stride_h + phase_y - c.pad_top;
        for (int64_t r = 0; r < rows && y < c.height; ++r, y += c.stride_h, to += plan.pitch) {
          if (y < 0) continue;
          CopyColumns(kernels, x + (channel * c.height + y) * c.width + first_column, c.stride_w, inside.last - inside.first, to);
        }
      }
    }
  }
}

// The addend may be where the sums go.
void CopyRow(const float* sums, const float* addend, int64_t count, float* to) {
  if (addend == nullptr) return CopyFloats(sums, count, to);
  for (int64_t i = 0; i < count; ++i) to[i] = sums[i] + addend[i];
}

// What all units of a call have in common.
struct NarrowCall {
  const NarrowPlan& plan;
  const TapSumsKernels& kernels;
  const LutMatMulKernels& activations;
  const ec_lut_narrow_factor& factor;
  const int64_t* offsets;
  const float* weights;
  const float* x;
  const ec_epilogue& epilogue;
  float* y;

  // Where nothing is added first, sums meet a ReLU before they are stored.
  bool relu_of_sums() const { return epilogue.activation == EC_ACTIVATION_RELU && epilogue.addend == nullptr; }
};

// The sums of a band and what follows them, to and behind index `first` of y.
void StoreBand(const NarrowCall& call, int64_t first, int64_t band_rows, const float* sums) {
  const ec_epilogue& e = call.epilogue;
  const int64_t width = call.plan.geometry.out_width;
  for (int64_t row = 0; row < band_rows; ++row) {
    const int64_t at = first + row * width;
    CopyRow(sums + row * call.plan.pitch, e.addend != nullptr ? e.addend + at : nullptr, width, call.y + at);
  }
  float* y = call.y + first;
  if (e.activation != EC_ACTIVATION_NONE && !call.relu_of_sums())
    call.activations.activate(e.activation, y, nullptr, y, band_rows * width);
}

void RunUnit(const NarrowCall& call, int64_t unit, float* copy, float* out) {
  const NarrowPlan& plan = call.plan;
  const Conv2dGeometry& g = plan.geometry;
  const int64_t first_row = unit % plan.bands * plan.band;
  const int64_t image = unit / plan.bands % g.conv.batch;
  const int64_t group = unit / plan.bands / g.conv.batch;
  const int64_t band_rows = g.out_height - first_row < plan.band ? g.out_height - first_row : plan.band;
  CopyBand(plan, call.kernels, call.x + (image * g.conv.in_channels + group * g.group_channels) * g.in_pixels(), first_row, copy);
  const int64_t first_output = group * g.group_outputs;
  for (int64_t i = 0; i < g.group_outputs; i += kTapOutputs) {
    const int64_t n = first_output + i;
    const int64_t outputs = g.group_outputs - i < kTapOutputs ? g.group_outputs - i : kTapOutputs;
    const float* bias = call.epilogue.bias != nullptr ? call.epilogue.bias + n : nullptr;
    call.kernels.run({copy, call.offsets, call.weights + n * call.factor.k, call.factor.k, bias, call.relu_of_sums(), outputs,
                      (band_rows - 1) * plan.pitch + g.out_width, out, plan.out_stride});
    for (int64_t o = 0; o < outputs; ++o) {
      StoreBand(call, (image * call.factor.n + n + o) * g.out_pixels() + first_row * g.out_width, band_rows,
                out + o * plan.out_stride);
    }
  }
}

// What decodes the tiles of a factor for the int8 convolution.
struct NarrowTiles {
  const ec_lut_narrow_factor* factor;
  LutNarrowLayout layout;
  int64_t channels;

  static int32_t Decode(const void* self, int64_t tile, uint8_t* panel, float* scales, float* row_scale) {
    const auto& [factor, layout, channels] = *static_cast<const NarrowTiles*>(self);
    for (int r = 0; r < kTileRows; ++r) scales[r] = 1.0f;
    return DecodeNarrowTile(*factor, layout, tile * kTileRows, channels, panel, row_scale);
  }
};

struct NarrowInt8Plan {
  NarrowTiles tiles;
  TileSource source;  // its context is the tiles, wherever they are
  Conv2dGeometry geometry;
  Int8Conv2dPlan plan;
};

ec_status MakeInt8Plan(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, const ec_parallel* parallel,
                       NarrowInt8Plan* plan) {
  ec_status status = CheckedLutNarrowLayout(factor, &plan->tiles.layout);
  if (status == EC_OK) status = MakeConv2dGeometry(factor->n, factor->k, /*channel_multiple=*/1, conv, &plan->geometry);
  if (status != EC_OK) return status;
  plan->tiles.factor = factor;
  plan->tiles.channels = plan->geometry.group_channels;
  const int64_t fours = CeilDiv(plan->tiles.channels, kQuadBytes), tiles = CeilDiv(factor->n, kTileRows);
  plan->source = {nullptr, NarrowTiles::Decode, factor->n, tiles, /*blocks=*/1, factor->k / plan->tiles.channels * fours, fours,
                  nullptr};
  return PlanInt8Conv2d(plan->source, &plan->geometry, parallel, &plan->plan);
}

bool ComputesInt8(const ec_conv2d* conv, ec_compute compute) {
  return compute == EC_COMPUTE_INT8 && conv != nullptr && conv->size == sizeof(*conv) && conv->group == 1;
}

ec_status CheckCall(const Conv2dGeometry& geometry, const ec_epilogue* epilogue, const float* x, const float* y, size_t needed,
                    const void* workspace, size_t workspace_bytes) {
  if (epilogue != nullptr && epilogue->gated != 0) return EC_ERR_ATTRIBUTE;
  if (geometry.empty()) return EC_OK;
  if ((x == nullptr && geometry.in_pixels() > 0) || y == nullptr) return EC_ERR_NULL_POINTER;
  return workspace == nullptr || workspace_bytes < needed ? EC_ERR_WORKSPACE : EC_OK;
}

}  // namespace
}  // namespace edgecomp

ec_status ec_lut_narrow_conv2d_workspace_bytes(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, ec_compute compute,
                                               const ec_parallel* parallel, size_t* bytes) {
  if (bytes == nullptr) return EC_ERR_NULL_POINTER;
  if (compute != EC_COMPUTE_FLOAT && compute != EC_COMPUTE_INT8) return EC_ERR_COMPUTE;
  if (edgecomp::ComputesInt8(conv, compute)) {
    edgecomp::NarrowInt8Plan plan;
    const ec_status status = edgecomp::MakeInt8Plan(factor, conv, parallel, &plan);
    if (status == EC_OK) *bytes = plan.plan.workspace_bytes;
    return status;
  }
  edgecomp::NarrowPlan plan;
  const ec_status status = edgecomp::MakePlan(factor, conv, parallel, &plan);
  if (status == EC_OK) *bytes = plan.workspace_bytes;
  return status;
}

ec_status ec_lut_narrow_conv2d(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, const float* x,
                               const ec_epilogue* epilogue, float* y, ec_compute compute, const ec_parallel* parallel,
                               void* workspace, size_t workspace_bytes) {
  if (compute != EC_COMPUTE_FLOAT && compute != EC_COMPUTE_INT8) return EC_ERR_COMPUTE;
  const ec_epilogue none = {sizeof(none), nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  edgecomp::Isa isa;
  if (edgecomp::ComputesInt8(conv, compute)) {
    edgecomp::NarrowInt8Plan plan;
    ec_status status = edgecomp::MakeInt8Plan(factor, conv, parallel, &plan);
    if (status == EC_OK) status = edgecomp::CheckEpilogue(epilogue, factor->n);
    if (status == EC_OK) status = edgecomp::SelectedIsa(&isa);
    if (status == EC_OK) {
      status = edgecomp::CheckCall(plan.geometry, epilogue, x, y, plan.plan.workspace_bytes, workspace, workspace_bytes);
    }
    if (status != EC_OK || plan.geometry.empty()) return status;
    plan.source.context = &plan.tiles;
    edgecomp::RunInt8Conv2d(plan.source, plan.geometry, plan.plan, edgecomp::PixelProductsFor(isa),
                            edgecomp::LutMatMulKernelsFor(isa), x, epilogue != nullptr ? *epilogue : none, y, parallel, workspace);
    return EC_OK;
  }
  edgecomp::NarrowPlan plan;
  ec_status status = edgecomp::MakePlan(factor, conv, parallel, &plan);
  if (status == EC_OK) status = edgecomp::CheckEpilogue(epilogue, factor->n);
  if (status == EC_OK) status = edgecomp::SelectedIsa(&isa);
  if (status == EC_OK) {
    status = edgecomp::CheckCall(plan.geometry, epilogue, x, y, plan.workspace_bytes, workspace, workspace_bytes);
  }
  if (status != EC_OK || plan.geometry.empty()) return status;

  auto* memory = edgecomp::FirstLine(workspace);
  auto* offsets = reinterpret_cast<int64_t*>(memory + plan.offsets);
  auto* weights = reinterpret_cast<float*>(memory + plan.weights);
  auto* task_memory = reinterpret_cast<float*>(memory + plan.first_task);
  edgecomp::FillOffsets(plan, offsets);
  const int64_t decoders = plan.layout.weights < edgecomp::kDecodedByOneThread || plan.tasks > factor->n ? 1 : plan.tasks;
  edgecomp::ParallelFor(parallel, decoders, [&](int64_t task) {
    const edgecomp::Range range = edgecomp::PartOf(factor->n, decoders, task);
    edgecomp::DecodeNarrowRows(*factor, plan.layout, range.first, range.last, weights);
  });
  const edgecomp::NarrowCall call = {plan,
                                     edgecomp::TapSumsKernelsFor(isa),
                                     edgecomp::LutMatMulKernelsFor(isa),
                                     *factor,
                                     offsets,
                                     weights,
                                     x,
                                     epilogue != nullptr ? *epilogue : none,
                                     y};
  edgecomp::ParallelFor(parallel, plan.tasks, [&](int64_t task) {
    float* copy = task_memory + task * (plan.copy_floats + plan.out_floats);
    const edgecomp::Range range = edgecomp::PartOf(plan.units, plan.tasks, task);
    for (int64_t unit = range.first; unit < range.last; ++unit) {
      // The padding is where it was for the unit before, unless that was another band.
      if (unit == range.first || plan.bands > 1) std::memset(copy, 0, static_cast<size_t>(plan.copy_floats) * sizeof(float));
      edgecomp::RunUnit(call, unit, copy, copy + plan.copy_floats);
    }
  });
  return EC_OK;
}
