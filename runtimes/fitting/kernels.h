// What is compiled once for every instruction set.
#ifndef EDGECOMP_FITTING_KERNELS_H_
#define EDGECOMP_FITTING_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "fitting/fitting.h"

namespace edgecomp::fitting {

constexpr int kTileRows = 16;
constexpr int kSpanColumns = 32;
constexpr int kGridEntries = 255;  // integers of a codebook: -127 to 127
constexpr int kFarPoint = 508;     // targets of a histogram are -508 to 508
constexpr int kPoints = 2 * kFarPoint + 1;
constexpr int kCells = 512;  // of the table of nearest entries
constexpr float kSmallestStep = 1e-30f;

// A matrix's settings, worked out once.
struct Problem {
  ecf_rows rows;
  int64_t padded;
  int64_t blocks;
  int64_t tiles;
};

// Entries and what finds the nearest one.
//
// The boundaries between integers are multiples of 1/2, so that all targets of a cell (i / 2, (i + 1) / 2] have the same nearest
// entry: a table over cells is exact. A target on a boundary takes the lower entry.
struct Codebook {
  int32_t entries;
  float values[256];
  float boundaries[256];       // entries - 1 of them
  float nearest[kCells];       // the nearest entry of each cell
  float nearest_code[kCells];  // and its code
};

// A tile's memory: weights and codes [padded][16], steps and scales (int8 values) [blocks][16].
struct TileBuffers {
  float* weights;
  float* steps;
  float* scales;
  int32_t* codes;
};

// For the k-means of a histogram.
struct KmeansMemory {
  static constexpr size_t kEdges = kGridEntries + 1;
  static constexpr size_t kCosts = (kEdges + 8) * kEdges / 2;
  static size_t DoubleCount(size_t clusters) { return kCosts + kEdges * clusters; }
  double* costs;  // [kCosts]
  double* least;  // [clusters][256]: the least cost of the points before an edge
};

struct Kernels {
  // Weights of a tile, scaled, rows side by side; rows and columns that are not there are 0.
  void (*load_tile)(const Problem& problem, int64_t tile, float* weights);
  // The largest weight of each block over 127, with its sign: steps to begin with.
  void (*first_steps)(const Problem& problem, const float* weights, float* steps);
  // The best steps among the present ones and the candidates of a round's turn, each refitted by least squares, and what they gain:
  // the sum over blocks of (sum of importance entry weight)^2 / (sum of importance entry^2), in units of 2^-40.
  int64_t (*search_steps)(const Problem& problem, const Codebook& codebook, int64_t round, const float* weights, float* steps);
  // Adds importance * step^2 * scale, as integers up to 2^30, at the integer nearest to each weight over its step: [kPoints].
  void (*add_histogram)(const Problem& problem, const float* weights, const float* steps, float scale, int64_t* histogram);
  // Centres of the exact k-means of 255 ascending points, ascending.
  void (*kmeans)(const int64_t* mass, const double* points, int32_t clusters, const KmeansMemory& memory, double* centres);
  // The tile's fit given the codebook: codes, scales and row scales.
  void (*fit_tile)(const Problem& problem, const Codebook& codebook, const TileBuffers& tile, float* row_scale);
  // Squared differences and weights of a tile, plain and weighted: adds to [4].
  void (*add_squares)(const Problem& problem, const Codebook& codebook, const TileBuffers& tile, const float* row_scale,
                      double* squares);
  // Codes of a tile as planes.
  void (*pack_tile)(const Problem& problem, const Codebook& codebook, int64_t tile, const int32_t* codes, uint8_t* planes);
  // The fit of three tiles to a Hessian, from their fit to importances; adds to the weighted squares [2].
  void (*compensate)(const Problem& problem, const Codebook& codebook, const ecf_hessian& hessian, const TileBuffers* tiles,
                     float* const* row_scales, float* workspace, double* squares);
  size_t (*compensate_floats)(const Problem& problem);  // of `workspace`
};

extern const Kernels kRefKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace edgecomp::fitting

#endif  // EDGECOMP_FITTING_KERNELS_H_
