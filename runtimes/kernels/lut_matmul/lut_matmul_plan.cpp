#include "core/checked_math.h"
#include "core/workspace.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp {
namespace {

// Rows of x that are prepared, and for which a panel is then decoded once. Threads wait for each other between these steps, so
// there should be few of them: as many rows as take a mebibyte, which lasts in a second-level cache, within bounds (a row's sums
// take 64 bytes of each task's memory).
constexpr int64_t kPreparedBytes = 1 << 20;
constexpr int64_t kFewestRowsAtOnce = 128;
constexpr int64_t kMostRowsAtOnce = 1024;

int64_t RowsAtOnce(int64_t rows, int64_t row_bytes) {
  int64_t most = kPreparedBytes / row_bytes;
  if (most < kFewestRowsAtOnce) most = kFewestRowsAtOnce;
  if (most > kMostRowsAtOnce) most = kMostRowsAtOnce;
  if (rows <= most) return rows;
  return CeilDiv(CeilDiv(rows, CeilDiv(rows, most)), kRowGroup) * kRowGroup;  // nearly equal passes
}

// Columns of a panel where blocks are smaller: 8 KiB for the 16 rows.
constexpr int64_t kChunkColumns = 512;

}  // namespace

ec_status MakeLutMatMulPlan(const ec_lut_factor& factor, const LutLayout& layout, int64_t rows, ec_compute compute,
                            const ec_parallel* parallel, bool needs_scratch, bool gated, LutMatMulPlan* plan) {
  if (compute != EC_COMPUTE_FLOAT && compute != EC_COMPUTE_INT8) return EC_ERR_COMPUTE;
  if (rows < 0) return EC_ERR_SHAPE;
  plan->layout = layout;
  plan->compute = compute;
  const int64_t fitting = kChunkColumns / factor.block_size;
  plan->blocks_per_chunk = fitting < 1 ? 1 : fitting < layout.blocks ? fitting : layout.blocks;
  plan->max_tasks = MaxTasks(parallel);
  plan->gated = gated;
  plan->paired = gated && factor.row_index == nullptr && factor.n % (2 * kTileRows) == 0;

  const bool int8 = compute == EC_COMPUTE_INT8;
  const CheckedSize row_bytes = CheckedSize(layout.padded_k) * (int8 ? 1 : int64_t{sizeof(float)});
  if (!row_bytes.fits()) return EC_ERR_OVERFLOW;
  plan->rows_at_once = RowsAtOnce(rows, static_cast<int64_t>(row_bytes.value()));
  const CheckedSize steps = CheckedSize(int8 ? plan->rows_at_once : 0) * layout.blocks * int64_t{sizeof(float)};
  const CheckedSize panel = CheckedSize(plan->blocks_per_chunk) * factor.block_size * kTileRows;
  const int64_t tiles_at_once = plan->paired ? 2 : 1;
  const CheckedSize sums = CheckedSize(plan->rows_at_once) * (tiles_at_once * int64_t{kTileRows * sizeof(float)});
  CheckedSize task = panel + sums;
  const CheckedSize row = CheckedSize(needs_scratch ? factor.k : 0) * int64_t{sizeof(float)};
  if (!task.fits() || !row.fits()) return EC_ERR_OVERFLOW;
  if (row.value() > task.value()) task = row;
  plan->panel_bytes = panel.value();
  plan->task_bytes = static_cast<size_t>(WholeLines(task));

  WorkspaceLayout workspace;
  plan->values = workspace.Add(CheckedSize(plan->rows_at_once) * static_cast<int64_t>(row_bytes.value()));
  plan->steps = workspace.Add(steps);
  plan->minus_sums = workspace.Add(steps);
  plan->tasks = workspace.Add(CheckedSize(plan->max_tasks) * static_cast<int64_t>(plan->task_bytes));
  const CheckedSize products = CheckedSize(gated && !plan->paired ? plan->rows_at_once : 0) * factor.n;
  plan->products = workspace.Add(products * int64_t{sizeof(float)});
  if (!workspace.fits()) return EC_ERR_OVERFLOW;
  plan->workspace_bytes = workspace.total();
  return EC_OK;
}

}  // namespace edgecomp
