// Exact k-means of a histogram over the integers that a codebook's entries can be.
#ifndef EDGECOMP_FITTING_KMEANS_H_
#define EDGECOMP_FITTING_KMEANS_H_

#include <algorithm>

#include "fitting/kernels.h"
#include "fitting/simd.h"

namespace edgecomp::fitting::FITTING_ISA {

// Centres of the best partition of -127 .. 127 with these masses into `clusters` runs, ascending. By dynamic programming over the
// first point of the last run, as edgecomp/fitting/kmeans.py has it, to the bit. Every run's last point has a lane of its own.
inline void KmeansOnGrid(const int64_t* mass, int32_t clusters, const KmeansMemory& memory, double* centres) {
  constexpr int kEdges = kGridEntries + 1;
  double sum[kEdges] = {};
  double moment[kEdges] = {};
  double second[kEdges] = {};
  for (int i = 0; i < kGridEntries; ++i) {
    const double weight = static_cast<double>(mass[i]);
    const double point = i - 127;
    sum[i + 1] = sum[i] + weight;
    moment[i + 1] = moment[i] + weight * point;
    second[i + 1] = second[i] + weight * point * point;
  }
  double* costs = memory.costs;  // [first][last]: of the run [first, last)
  for (int first = 0; first < kEdges; ++first) {
    for (int last = first; last < kEdges; ++last) {
      const double weight = std::max(sum[last] - sum[first], 0.0);
      const double linear = moment[last] - moment[first];
      const double mean_square = linear * linear / (weight > 0 ? weight : 1.0);
      const double cost = second[last] - second[first] - (weight > 0 ? mean_square : 0.0);
      costs[first * kEdges + last] = cost > 0 ? cost : 0.0;
    }
  }
  double cost[kEdges];
  double least[kEdges];
  std::copy(costs, costs + kEdges, cost);
  for (int32_t cluster = 1; cluster < clusters; ++cluster) {
    double* best = memory.firsts + cluster * kEdges;
    std::fill(least, least + kEdges, HUGE_VAL);
    for (int first = 0; first < kEdges; ++first) {
      const double* run = costs + first * kEdges;
      const double before = cost[first];
      const double index = first;
      for (int last = first; last < kEdges; ++last) {
        const double total = before + run[last];
        best[last] = total < least[last] ? index : best[last];
        least[last] = total < least[last] ? total : least[last];
      }
    }
    std::copy(least, least + kEdges, cost);
  }
  int last = kGridEntries;
  for (int32_t cluster = clusters - 1; cluster >= 0; --cluster) {
    const int first = cluster == 0 ? 0 : static_cast<int>(memory.firsts[cluster * kEdges + last]);
    const double weight = sum[last] - sum[first];
    centres[cluster] = weight > 0 ? (moment[last] - moment[first]) / weight : std::min(first, kGridEntries - 1) - 127;
    last = first;
  }
  std::sort(centres, centres + clusters);
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_KMEANS_H_
