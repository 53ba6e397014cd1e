// Exact k-means of a histogram over the integers that a codebook's entries can be.
#ifndef EDGECOMP_FITTING_KMEANS_H_
#define EDGECOMP_FITTING_KMEANS_H_

#include <algorithm>

#include "fitting/kernels.h"
#include "fitting/simd.h"

namespace edgecomp::fitting::FITTING_ISA {

constexpr int kLasts = 8;  // run ends side by side
typedef double Doubles __attribute__((vector_size(kLasts * 8)));

inline Doubles LoadDoubles(const double* from) {
  Doubles v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

inline void StoreDoubles(double* to, Doubles v) { std::memcpy(to, &v, sizeof(v)); }

// Centres of the best partition of ascending points with these masses into `clusters` runs, ascending. By dynamic programming over
// the first point of the last run, as edgecomp/fitting/kmeans.py has it, to the bit. Eight runs' ends have a lane each, and the
// costs of all their runs lie one after another.
//
// A run that costs more than all points before its end did with a run less is no part of the best partition; nor is one that begins
// as early and ends later. So ends have a first beginning, and it ascends. `slack` is above what rounding does to costs.
inline void KmeansOnGrid(const int64_t* mass, const double* points, int32_t clusters, const KmeansMemory& memory, double* centres) {
  constexpr int kEdges = kGridEntries + 1;
  static_assert(kEdges % kLasts == 0);
  double sum[kEdges] = {};
  double moment[kEdges] = {};
  double second[kEdges] = {};
  for (int i = 0; i < kGridEntries; ++i) {
    const double weight = static_cast<double>(mass[i]);
    sum[i + 1] = sum[i] + weight;
    moment[i + 1] = moment[i] + weight * points[i];
    second[i + 1] = second[i] + weight * points[i] * points[i];
  }
  const double slack = second[kGridEntries] * 1e-9;
  // The cost of the run [first, last), in order of last / 8, first, last % 8; eight ends have the beginnings up to the last of
  // them.
  const auto costs_at = [&](int first, int last) {
    const int eight = last / kLasts;
    return memory.costs + (kLasts * eight * (eight + 1) / 2 + first) * kLasts + last % kLasts;
  };
  for (int lasts = 0; lasts < kEdges; lasts += kLasts) {
    const Doubles sums = LoadDoubles(sum + lasts);
    const Doubles moments = LoadDoubles(moment + lasts);
    const Doubles seconds = LoadDoubles(second + lasts);
    for (int first = 0; first < lasts + kLasts; ++first) {
      const Doubles weight = sums - sum[first];
      const Doubles linear = moments - moment[first];
      const Doubles mean_square = weight > 0.0 ? linear * linear / weight : Doubles{};
      const Doubles cost = seconds - second[first] - mean_square;
      StoreDoubles(costs_at(first, lasts), cost > 0.0 ? cost : Doubles{});
    }
    for (int first = lasts + 1; first < lasts + kLasts; ++first) {
      std::fill(costs_at(first, lasts), costs_at(first, first), HUGE_VAL);
    }
  }
  for (int last = 0; last < kEdges; ++last) memory.least[last] = *costs_at(0, last);
  for (int32_t cluster = 1; cluster < clusters; ++cluster) {
    const double* before = memory.least + (cluster - 1) * kEdges;
    double* least = memory.least + cluster * kEdges;
    int begin = 0;
    for (int lasts = 0; lasts < kEdges; lasts += kLasts) {
      while (begin < lasts && *costs_at(begin, lasts) > before[lasts] + slack) ++begin;
      Doubles best = Doubles{} + HUGE_VAL;
      for (int first = begin; first < lasts + kLasts; ++first) {
        const Doubles total = LoadDoubles(costs_at(first, lasts)) + before[first];
        best = total < best ? total : best;
      }
      StoreDoubles(least + lasts, best);
    }
  }
  int last = kGridEntries;
  for (int32_t cluster = clusters - 1; cluster >= 0; --cluster) {
    int first = 0;
    if (cluster > 0) {
      const double* before = memory.least + (cluster - 1) * kEdges;
      while (before[first] + *costs_at(first, last) != memory.least[cluster * kEdges + last]) ++first;
    }
    const double weight = sum[last] - sum[first];
    centres[cluster] = weight > 0 ? (moment[last] - moment[first]) / weight : points[std::min(first, kGridEntries - 1)];
    last = first;
  }
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_KMEANS_H_
