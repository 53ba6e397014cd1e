// Exact k-means of a histogram over the integers that a codebook's entries can be.
#ifndef EDGECOMP_FITTING_KMEANS_H_
#define EDGECOMP_FITTING_KMEANS_H_

#include <cstdint>

namespace edgecomp::fitting {

// Centres of the best partition of -127 .. 127 with these masses into `clusters` runs, ascending. False where memory is exhausted.
// By dynamic programming over the first point of the last run, in the order of edgecomp/passes/kmeans.py, to the bit.
bool KmeansOnGrid(const int64_t* mass, int32_t clusters, double* centres);

}  // namespace edgecomp::fitting

#endif  // EDGECOMP_FITTING_KMEANS_H_
