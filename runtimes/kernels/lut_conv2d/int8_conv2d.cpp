#include "kernels/lut_conv2d/int8_conv2d.h"

#include <cmath>
#include <cstring>

#include "core/workspace.h"
#include "kernels/lut_conv2d/copy_floats.h"
#include "kernels/lut_conv2d/quad_image.h"

namespace edgecomp {
namespace {

// Pixels that a tile is multiplied by before what follows: 12 KiB of results. A tile goes through all pixels before the next one,
// since results of more rows than 16 at a time lie in more pages than a processor knows by heart (24 -> 144 channels took twice as
// long).
constexpr int64_t kStripPixels = 192;
constexpr int64_t kOutStride = kStripPixels + kPixelSlack;
constexpr int64_t kOutBytes = kTileRows * kOutStride * int64_t{sizeof(float)};
constexpr int64_t kLeastUnits = 16;      // where there are several tasks: two or four threads then end at about the same time
constexpr int64_t kLeastWork = 1 << 20;  // products that are worth another task
constexpr int64_t kWorkOfValue = 16;     // in products: what it costs to quantise one

int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t Most(int64_t a, int64_t b) { return a > b ? a : b; }

// Products of 1 x 1 that keep every pixel know no rows.
Conv2dGeometry WithoutRows(Conv2dGeometry g) {
  ec_conv2d& c = g.conv;
  const bool every = c.kernel_h == 1 && c.kernel_w == 1 && c.stride_h == 1 && c.stride_w == 1 &&
                     (c.pad_top | c.pad_left | c.pad_bottom | c.pad_right) == 0;
  if (!every) return g;
  c.width *= c.height;
  c.height = 1;
  g.out_width *= g.out_height;
  g.out_height = 1;
  return g;
}

// A decoded tile, and where it lies in a task's memory.
struct DecodedTile {
  uint8_t* panel;
  int32_t* starts;
  float *scales, *bias;

  static CheckedSize Bytes(CheckedSize panel_bytes, int64_t blocks) {
    return panel_bytes + (CheckedSize(blocks) * 2 + 1) * (kTileRows * int64_t{sizeof(float)});
  }
  DecodedTile(uint8_t* memory, int64_t panel_bytes, int64_t blocks)
      : panel(memory),
        starts(reinterpret_cast<int32_t*>(memory + panel_bytes)),
        scales(reinterpret_cast<float*>(starts + blocks * kTileRows)),
        bias(scales + blocks * kTileRows) {}
};

class Int8Conv2d {
 public:
  Int8Conv2d(const TileSource& source, const Conv2dGeometry& geometry, const Int8Conv2dPlan& plan,
             const PixelProductsKernels& kernels, const LutMatMulKernels& activations, const ec_epilogue& epilogue,
             uint8_t* workspace)
      : source_(source),
        plan_(plan),
        geometry_(geometry),
        kernels_(kernels),
        activations_(activations),
        epilogue_(epilogue),
        workspace_(workspace),
        offsets_(reinterpret_cast<int64_t*>(workspace + plan.offsets)),
        ends_(reinterpret_cast<int64_t*>(workspace + plan.ends)),
        sources_(reinterpret_cast<int64_t*>(workspace + plan.sources)) {}

  // Which groups of columns meet pixels, and where.
  void ListGroups() {
    const ShiftedImage& image = plan_.image;
    int64_t groups = 0, block = 0;
    ends_[0] = 0;
    for (int64_t y = 0; y < image.rows.taps; ++y) {
      for (int64_t x = 0; x < image.columns.taps; ++x) {
        const int64_t tap = (image.rows.first_tap + y) * geometry_.conv.kernel_w + image.columns.first_tap + x;
        const int64_t offset = image.TapOffset(y, x) * kQuadBytes;
        for (int64_t quad = 0; quad < plan_.quads; ++quad, ++groups) {
          sources_[groups] = tap * source_.tap_groups + quad;
          offsets_[groups] = quad * plan_.plane_bytes + offset;
          for (; sources_[groups] >= (block + 1) * source_.block_groups; ++block) ends_[block + 1] = groups;
        }
      }
    }
    for (; block < source_.blocks; ++block) ends_[block + 1] = groups;
  }

  void RunImage(const float* x, const float* addend, float* y, const ec_parallel* parallel) {
    const StepGrid step_grid = GridOf(RangeOf(x, parallel));
    Quantize(x, step_grid.grid, parallel);
    zero_ = step_grid.grid.zero - kernels_.byte_offset;
    step_ = step_grid.step;
    const int64_t units = source_.tiles * plan_.pixel_parts;
    const int64_t tasks = Least(plan_.max_tasks, units);
    UnitsLeft left(units, tasks);
    ParallelFor(parallel, tasks, [&](int64_t task) { Multiply(left, task, addend, y); });
  }

 private:
  uint8_t* TaskMemory(int64_t task) const { return workspace_ + plan_.tasks + static_cast<size_t>(task) * plan_.task_bytes; }
  int64_t TasksOf(int64_t values) const { return Least(plan_.max_tasks, Most(1, values * kWorkOfValue / kLeastWork)); }

  ValueRange RangeOf(const float* x, const ec_parallel* parallel) const {
    auto* ranges = reinterpret_cast<ValueRange*>(workspace_ + plan_.ranges);
    const int64_t values = geometry_.conv.in_channels * geometry_.in_pixels();
    const int64_t tasks = TasksOf(values);
    ParallelFor(parallel, tasks, [&](int64_t task) {
      const Range part = PartOf(values, tasks, task);
      ranges[task] = {0.0f, 0.0f, 0.0f};
      kernels_.extend_range(x + part.first, part.last - part.first, &ranges[task]);
    });
    ValueRange all = ranges[0];
    for (int64_t task = 1; task < tasks; ++task) {
      all.least = ranges[task].least < all.least ? ranges[task].least : all.least;
      all.most = ranges[task].most > all.most ? ranges[task].most : all.most;
      all.not_finite += ranges[task].not_finite;
    }
    return all;
  }

  void Quantize(const float* x, ImageGrid grid, const ec_parallel* parallel) const {
    const QuadImage quads(kernels_, plan_.image, geometry_, grid, workspace_ + plan_.quad_planes);
    const int64_t tasks = Least(TasksOf(geometry_.conv.in_channels * geometry_.in_pixels()), quads.rows());
    UnitsLeft left(tasks, tasks);
    ParallelFor(parallel, tasks, [&](int64_t task) {
      for (int64_t unit; left.Take(task, &unit);) quads.FillRows(x, PartOf(quads.rows(), tasks, unit), TaskMemory(task));
    });
  }

  void Multiply(UnitsLeft& units, int64_t task, const float* addend, float* y) const {
    auto* out = reinterpret_cast<float*>(TaskMemory(task));
    const DecodedTile weights(TaskMemory(task) + kOutBytes, plan_.panel_bytes, source_.blocks);
    const int64_t strips = CeilDiv(plan_.image.length(), kStripPixels);
    const PixelProductsKernels* kernels = nullptr;
    int64_t decoded = -1;
    for (int64_t unit; units.Take(task, &unit);) {
      const int64_t tile = unit / plan_.pixel_parts;
      if (tile != decoded) kernels = Decode(tile, weights);
      decoded = tile;
      const Range part = PartOf(strips, plan_.pixel_parts, unit % plan_.pixel_parts);
      // A tile's rows may be outputs of several groups, whose inputs differ: each is multiplied by those.
      for (int64_t lane = tile * kTileRows; lane < (tile + 1) * kTileRows; ++lane) {
        const GroupRows rows = RowsOfGroup(tile * kTileRows, lane);
        for (int64_t strip = part.first; strip < part.last && rows.count > 0; ++strip) {
          MultiplyStrip(*kernels, weights, rows, strip * kStripPixels, out, addend, y);
        }
        if (geometry_.conv.group == 1 && rows.count > 0) break;
      }
    }
  }

  // Rows of a tile that are outputs of one group of channels.
  struct GroupRows {
    int64_t group;
    int64_t count;             // of the tile's rows, to the last one of the group; 0 where there are none
    bool in_order;             // rows of the matrix one after the other, as many as kernels write
    int64_t plane[kTileRows];  // where a row's results begin in y, or -1 where it is of another group
  };

  // Those of the group of a lane, if it is the first one of it.
  GroupRows RowsOfGroup(int64_t first_lane, int64_t lane) const {
    GroupRows rows = {GroupOfLane(lane), 0, true, {}};
    for (int64_t r = 0; r < kTileRows && rows.group >= 0; ++r) {
      const bool in_group = GroupOfLane(first_lane + r) == rows.group;
      if (in_group && first_lane + r < lane) return {-1, 0, false, {}};
      rows.plane[r] = in_group ? source_.RowOfLane(first_lane + r) * geometry_.out_pixels() : -1;
      if (in_group) rows.count = r + 1;
    }
    for (int64_t r = 0; r < rows.count; ++r) {
      rows.in_order = rows.in_order && rows.plane[r] >= 0 && rows.plane[r] == rows.plane[0] + r * geometry_.out_pixels();
    }
    rows.in_order = rows.in_order && rows.count % kRowsWritten == 0;
    return rows;
  }

  // Returns the kernels for the tile's weights.
  const PixelProductsKernels* Decode(int64_t tile, const DecodedTile& to) const {
    float row_scale[kTileRows];
    const int32_t largest = source_.decode(source_.context, tile, to.panel, to.scales, row_scale);
    for (int64_t g = 0; g < plan_.groups; ++g) {  // those without pixels go
      if (sources_[g] != g) std::memcpy(to.panel + g * kPlaneBytes, to.panel + sources_[g] * kPlaneBytes, kPlaneBytes);
    }
    for (int64_t b = 0; b < source_.blocks; ++b) {
      int32_t* starts = to.starts + b * kTileRows;
      kernels_.sum_rows(to.panel + ends_[b] * kPlaneBytes, ends_[b + 1] - ends_[b], starts);
      for (int r = 0; r < kTileRows; ++r) starts[r] *= -zero_;
      for (int r = 0; r < kTileRows; ++r) to.scales[b * kTileRows + r] *= row_scale[r] * step_;
    }
    for (int r = 0; r < kTileRows; ++r) {
      const int64_t n = source_.RowOfLane(tile * kTileRows + r);
      to.bias[r] = epilogue_.bias != nullptr && n >= 0 ? epilogue_.bias[n] : 0.0f;
    }
    const PixelProductsKernels* kernels = &kernels_;
    while (largest > kernels->largest_weight && kernels->larger_weights != nullptr) kernels = kernels->larger_weights;
    return kernels;
  }

  int64_t GroupOfLane(int64_t lane) const {
    const int64_t n = source_.RowOfLane(lane);
    return n < 0 ? -1 : n / geometry_.group_outputs;
  }

  void MultiplyStrip(const PixelProductsKernels& kernels, const DecodedTile& decoded, const GroupRows& rows, int64_t first,
                     float* out, const float* addend, float* y) const {
    const int64_t count = Least(kStripPixels, plan_.image.length() - first);
    const bool relu = epilogue_.activation == EC_ACTIVATION_RELU && addend == nullptr;
    const bool done = relu || epilogue_.activation == EC_ACTIVATION_NONE;
    const PixelTile tile = {decoded.panel, offsets_,   ends_, source_.blocks, decoded.starts, decoded.scales,
                            decoded.bias,  rows.count, relu};
    const uint8_t* pixels = workspace_ + plan_.quad_planes + rows.group * plan_.quads * plan_.plane_bytes + first * kQuadBytes;
    // Kernels write whole vectors. The addend may lie where y does.
    if (addend == nullptr && rows.in_order && plan_.image.pitch == geometry_.out_width && count % kPixelsWritten == 0) {
      float* to = y + rows.plane[0] + first;
      kernels.multiply(tile, pixels, count, to, geometry_.out_pixels());
      for (int64_t r = 0; r < rows.count && !done; ++r, to += geometry_.out_pixels()) {
        activations_.activate(epilogue_.activation, to, nullptr, to, count);
      }
      return;
    }
    kernels.multiply(tile, pixels, count, out, kOutStride);
    // Columns between the output's width and the pitch go.
    const int64_t pitch = plan_.image.pitch, width = geometry_.out_width;
    for (int64_t i = 0; i < count;) {
      const int64_t row = (first + i) / pitch, column = (first + i) % pitch;
      const int64_t left = Least(pitch - column, count - i), wanted = Least(left, width - column);
      for (int64_t r = 0; r < rows.count && wanted > 0; ++r) {
        if (rows.plane[r] >= 0) StoreRow(out + r * kOutStride + i, wanted, rows.plane[r] + row * width + column, done, addend, y);
      }
      i += left;
    }
  }

  void StoreRow(float* z, int64_t count, int64_t at, bool done, const float* addend, float* y) const {
    if (addend != nullptr) {
      for (int64_t j = 0; j < count; ++j) z[j] += addend[at + j];
    }
    if (done) return CopyFloats(z, count, y + at);
    activations_.activate(epilogue_.activation, z, nullptr, y + at, count);
  }

  const TileSource& source_;
  const Int8Conv2dPlan& plan_;
  const Conv2dGeometry& geometry_;
  const PixelProductsKernels& kernels_;
  const LutMatMulKernels& activations_;
  const ec_epilogue& epilogue_;
  uint8_t* workspace_;
  int64_t *offsets_, *ends_, *sources_;
  int32_t zero_ = 0;  // as bytes of the image have it
  float step_ = 0.0f;
};

}  // namespace

ec_status PlanInt8Conv2d(const TileSource& source, Conv2dGeometry* geometry, const ec_parallel* parallel, Int8Conv2dPlan* plan) {
  *geometry = WithoutRows(*geometry);
  plan->image = MakeShiftedImage(*geometry);
  plan->quads = CeilDiv(geometry->group_channels, kQuadBytes);
  plan->max_tasks = MaxTasks(parallel);
  const CheckedSize plane = plan->image.plane_pixels() * kQuadBytes;
  const CheckedSize planes = plane * plan->quads * geometry->conv.group + kPixelSlack * kQuadBytes;
  const CheckedSize panel = CheckedSize(source.blocks) * source.block_groups * kPlaneBytes;
  if (!planes.fits() || !panel.fits()) return EC_ERR_OVERFLOW;
  plan->plane_bytes = static_cast<int64_t>(plane.value());
  plan->panel_bytes = static_cast<int64_t>(panel.value());
  plan->groups = plan->image.rows.taps * plan->image.columns.taps * plan->quads;
  plan->pixel_parts = 1;
  const int64_t strips = CeilDiv(plan->image.length(), kStripPixels);
  if (plan->max_tasks > 1 && strips > 1) {
    const CheckedSize products = CheckedSize(plan->groups) * kPlaneBytes * plan->image.length();
    const int64_t worth = products.fits() ? static_cast<int64_t>(products.value()) / kLeastWork : strips;
    plan->pixel_parts = Most(1, Least(Least(strips, worth), CeilDiv(kLeastUnits, source.tiles)));
  }

  const CheckedSize unit = DecodedTile::Bytes(panel, source.blocks) + kOutBytes;
  const CheckedSize row = CheckedSize(geometry->conv.width) * kQuadBytes;
  const CheckedSize task = unit.value() > row.value() ? unit : row;
  if (!(task + kWorkspaceAlignment).fits()) return EC_ERR_OVERFLOW;
  plan->task_bytes = static_cast<size_t>(WholeLines(task));

  WorkspaceLayout parts;
  plan->quad_planes = parts.Add(planes);
  plan->offsets = parts.Add(CheckedSize(plan->groups) * int64_t{sizeof(int64_t)});
  plan->sources = parts.Add(CheckedSize(plan->groups) * int64_t{sizeof(int64_t)});
  plan->ends = parts.Add(CheckedSize(source.blocks + 1) * int64_t{sizeof(int64_t)});
  plan->ranges = parts.Add(CheckedSize(plan->max_tasks) * int64_t{sizeof(ValueRange)});
  plan->tasks = parts.Add(CheckedSize(plan->max_tasks) * static_cast<int64_t>(plan->task_bytes));
  if (!parts.fits()) return EC_ERR_OVERFLOW;
  plan->workspace_bytes = parts.total();
  return EC_OK;
}

void RunInt8Conv2d(const TileSource& source, const Conv2dGeometry& geometry, const Int8Conv2dPlan& plan,
                   const PixelProductsKernels& kernels, const LutMatMulKernels& activations, const float* x,
                   const ec_epilogue& epilogue, float* y, const ec_parallel* parallel, void* workspace) {
  Int8Conv2d convolution(source, geometry, plan, kernels, activations, epilogue, FirstLine(workspace));
  convolution.ListGroups();
  const Conv2dGeometry& g = geometry;
  for (int64_t image = 0; image < g.conv.batch; ++image) {
    const int64_t first = image * source.n * g.out_pixels();
    convolution.RunImage(x + image * g.conv.in_channels * g.in_pixels(),
                         epilogue.addend != nullptr ? epilogue.addend + first : nullptr, y + first, parallel);
  }
}

}  // namespace edgecomp
