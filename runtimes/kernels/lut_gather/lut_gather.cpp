// y[i, :] = w[indices[i], :]
#include "core/checked_math.h"
#include "core/parallel.h"
#include "kernels/lut/lut_row.h"

namespace edgecomp {
namespace {

// Without an inverse of row_index, which would have to be stored or allocated, a row is found by a scan: 4 bytes a row of the
// matrix, little beside the row's own codes for as long as gathers are rare.
int64_t LaneOfRow(const ec_lut_factor& factor, int64_t row) {
  if (factor.row_index == nullptr) return row;
  for (int64_t lane = 0; lane < factor.tiles * kTileRows; ++lane) {
    if (factor.row_index[lane] == row) return lane;
  }
  return -1;
}

void ZeroRow(float* y, int64_t k) {
  for (int64_t i = 0; i < k; ++i) y[i] = 0.0f;
}

}  // namespace
}  // namespace edgecomp

ec_status ec_lut_gather(const ec_lut_factor* factor, const int64_t* indices, int64_t count, float* y, const ec_parallel* parallel) {
  edgecomp::LutLayout layout;
  const ec_status status = edgecomp::CheckedLutLayout(factor, &layout);
  if (status != EC_OK) return status;
  if (count < 0) return EC_ERR_SHAPE;
  if (count == 0) return EC_OK;
  if (indices == nullptr || y == nullptr) return EC_ERR_NULL_POINTER;
  if (!(edgecomp::CheckedSize(count) * factor->k * int64_t{sizeof(float)}).fits()) return EC_ERR_OVERFLOW;
  for (int64_t i = 0; i < count; ++i) {
    if (indices[i] < -factor->n || indices[i] >= factor->n) return EC_ERR_INDEX_RANGE;
  }
  const int64_t most = edgecomp::MaxTasks(parallel);
  const int64_t tasks = count < most ? count : most;
  edgecomp::ParallelFor(parallel, tasks, [&](int64_t task) {
    const edgecomp::Range range = edgecomp::PartOf(count, tasks, task);
    for (int64_t i = range.first; i < range.last; ++i) {
      const int64_t row = indices[i] < 0 ? indices[i] + factor->n : indices[i];
      const int64_t lane = edgecomp::LaneOfRow(*factor, row);
      if (lane >= 0) {
        edgecomp::DecodeLane(*factor, layout, lane, y + i * factor->k);
      } else {
        edgecomp::ZeroRow(y + i * factor->k, factor->k);  // a row_index that ec_lut_check would have refused
      }
    }
  });
  return EC_OK;
}
