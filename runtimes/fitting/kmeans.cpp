#include "fitting/kmeans.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>

#include "fitting/kernels.h"

namespace edgecomp::fitting {

bool KmeansOnGrid(const int64_t* mass, int32_t clusters, double* centres) {
  constexpr int kCount = kGridEntries;
  constexpr int kEdges = kCount + 1;
  double sum[kEdges] = {};
  double moment[kEdges] = {};
  double second[kEdges] = {};
  for (int i = 0; i < kCount; ++i) {
    const double weight = static_cast<double>(mass[i]);
    const double point = i - 127;
    sum[i + 1] = sum[i] + weight;
    moment[i + 1] = moment[i] + weight * point;
    second[i + 1] = second[i] + weight * point * point;
  }
  // costs[last][first]: of a run [first, last), whose first point is the one that is searched for.
  const std::unique_ptr<double[]> costs(new (std::nothrow) double[kEdges * kEdges]);
  const std::unique_ptr<int16_t[]> firsts(new (std::nothrow) int16_t[static_cast<size_t>(clusters) * kEdges]);
  if (costs == nullptr || firsts == nullptr) return false;
  for (int last = 0; last < kEdges; ++last) {
    for (int first = 0; first <= last; ++first) {
      const double weight = std::max(sum[last] - sum[first], 0.0);
      const double linear = moment[last] - moment[first];
      const double mean_square = weight > 0 ? linear * linear / weight : 0.0;
      costs[last * kEdges + first] = std::max(second[last] - second[first] - mean_square, 0.0);
    }
  }
  double cost[kEdges];
  double next[kEdges];
  for (int last = 0; last < kEdges; ++last) cost[last] = costs[last * kEdges];
  for (int32_t cluster = 1; cluster < clusters; ++cluster) {
    for (int last = 0; last < kEdges; ++last) {
      const double* run = costs.get() + last * kEdges;
      double least = HUGE_VAL;
      int best = 0;
      for (int first = 0; first <= last; ++first) {
        const double total = cost[first] + run[first];
        if (total < least) {
          least = total;
          best = first;
        }
      }
      next[last] = least;
      firsts[cluster * kEdges + last] = static_cast<int16_t>(best);
    }
    std::copy(next, next + kEdges, cost);
  }
  int last = kCount;
  for (int32_t cluster = clusters - 1; cluster >= 0; --cluster) {
    const int first = cluster == 0 ? 0 : firsts[cluster * kEdges + last];
    const double weight = sum[last] - sum[first];
    centres[cluster] = weight > 0 ? (moment[last] - moment[first]) / weight : std::min(first, kCount - 1) - 127;
    last = first;
  }
  std::sort(centres, centres + clusters);
  return true;
}

}  // namespace edgecomp::fitting
