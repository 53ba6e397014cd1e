// The fit of a tile of 16 rows to column importances. Rows lie side by side in a vector and columns come one after another, so that
// every sum of a block has one order on every processor: four partial sums of every fourth column, (0 + 2) + (1 + 3).
#ifndef EDGECOMP_FITTING_TILE_FIT_H_
#define EDGECOMP_FITTING_TILE_FIT_H_

#include "fitting/nearest.h"

namespace edgecomp::fitting::FITTING_ISA {

// Steps that a search tries, over the largest weight of a block by the largest entry, of both signs: while codebooks are fitted,
// half of them in every other round, and at the end.
constexpr float kCandidates[2][4] = {{0.75f, 0.91f, 1.07f, 1.22f}, {0.83f, 0.99f, 1.14f, 1.3f}};
constexpr float kFineCandidates[] = {0.6f,  0.64f, 0.68f, 0.72f, 0.76f, 0.8f,  0.84f, 0.88f, 0.92f, 0.96f, 1.0f,
                                     1.04f, 1.08f, 1.12f, 1.16f, 1.2f,  1.24f, 1.28f, 1.32f, 1.36f, 1.4f};
constexpr int kStepRefits = 2;

inline Floats Inverse(Floats steps, float per_step) {
  return Abs(steps) < kSmallestStep ? Broadcast(0) : Broadcast(per_step) * (Broadcast(1) / steps);
}

inline void LoadTile(const Problem& problem, int64_t tile, float* weights) {
  const ecf_rows& rows = problem.rows;
  const int64_t first = tile * kTileRows;
  const int count = static_cast<int>(rows.n - first < kTileRows ? rows.n - first : kTileRows);
  std::memset(weights, 0, sizeof(float) * static_cast<size_t>(problem.padded * kTileRows));
  constexpr int64_t kStrip = 32;  // columns at a time, so that a row's cache line is used up
  for (int64_t strip = 0; strip < rows.k; strip += kStrip) {
    const int64_t end = strip + kStrip < rows.k ? strip + kStrip : rows.k;
    for (int r = 0; r < count; ++r) {
      const float* row = rows.weights + (first + r) * rows.k;
      for (int64_t j = strip; j < end; ++j) weights[j * kTileRows + r] = row[j] * rows.scale;
    }
  }
}

// The weight largest in magnitude of a block, the positive one of two.
inline Floats Largest(const float* weights, int64_t columns) {
  Floats high = Load(weights);
  Floats low = high;
  for (int64_t j = 1; j < columns; ++j) {
    const Floats w = Load(weights + j * kTileRows);
    high = Max(w, high);
    low = Min(w, low);
  }
  return high >= -low ? high : low;
}

struct Sums {
  Floats numerator;
  Floats denominator;
  Floats Step() const { return denominator > 0.0f ? numerator / denominator : Broadcast(0); }
  Floats Gain() const { return denominator > 0.0f ? numerator * numerator / denominator : Broadcast(0); }
};

// Of the least-squares step of a block whose weights have the entries nearest to `weights * inverse`.
template <class Nearest>
inline Sums BlockSums(const Nearest& nearest, const float* weights, const float* importance, int64_t columns, Floats inverse) {
  Floats numerator[4] = {};
  Floats denominator[4] = {};
  for (int64_t j = 0; j < columns; j += 4) {
    for (int part = 0; part < 4; ++part) {
      const Floats w = Load(weights + (j + part) * kTileRows);
      const Floats value = nearest.Value(w * inverse);
      const Floats weighted = Broadcast(importance[j + part]) * value;
      numerator[part] += weighted * w;
      denominator[part] += weighted * value;
    }
  }
  return {(numerator[0] + numerator[2]) + (numerator[1] + numerator[3]),
          (denominator[0] + denominator[2]) + (denominator[1] + denominator[3])};
}

inline void FirstSteps(const Problem& problem, const float* weights, float* steps) {
  for (int64_t block = 0; block < problem.blocks; ++block) {
    for (int lane = 0; lane < kTileRows; lane += kLanes) {
      const Floats largest = Largest(weights + block * problem.rows.block_size * kTileRows + lane, problem.rows.block_size);
      Store(steps + block * kTileRows + lane, largest / 127.0f);
    }
  }
}

// The gain of a step is what it takes from the block's weighted squares; sums of gains are integers in units of 2^-40, without an
// order.
inline int64_t SumOfGains(Floats gain) {
  constexpr double kScale = 1099511627776.0;  // 2^40
  int64_t sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<int64_t>(std::nearbyint(static_cast<double>(gain[i]) * kScale));
  return sum;
}

// The best steps of both signs among candidates and, if `present`, those that there are.
template <size_t kCount>
int64_t Search(const Problem& problem, const Codebook& codebook, const float (&candidates)[kCount], bool present,
               const float* weights, float* steps) {
  const int64_t columns = problem.rows.block_size;
  int64_t gains = 0;
  WithNearest(codebook, [&](const auto& nearest) {
    for (int64_t block = 0; block < problem.blocks; ++block) {
      const float* importance = problem.rows.importance + block * columns;
      for (int lane = 0; lane < kTileRows; lane += kLanes) {
        const float* start = weights + block * columns * kTileRows + lane;
        float* step = steps + block * kTileRows + lane;
        Floats most = Broadcast(-1);
        Floats best = Broadcast(0);
        const auto attempt = [&](Floats candidate) {
          const Sums sums = BlockSums(nearest, start, importance, columns, Inverse(candidate, nearest.kPerStep));
          const Floats gain = sums.Gain();
          const auto better = gain > most;
          most = better ? gain : most;
          best = better ? sums.Step() : best;
        };
        if (present) attempt(Load(step));
        const Floats base = Largest(start, columns) / static_cast<float>(problem.rows.largest_entry);
        for (const float candidate : candidates) {
          attempt(base * candidate);
          attempt(base * -candidate);
        }
        Store(step, best);
        gains += SumOfGains(most);
      }
    }
  });
  return gains;
}

inline int64_t SearchSteps(const Problem& problem, const Codebook& codebook, int64_t round, const float* weights, float* steps) {
  return Search(problem, codebook, kCandidates[round % 2], true, weights, steps);
}

// Steps refitted by least squares to the entries nearest at the present ones.
inline void RefitSteps(const Problem& problem, const Codebook& codebook, const float* weights, float* steps) {
  const int64_t columns = problem.rows.block_size;
  WithNearest(codebook, [&](const auto& nearest) {
    for (int64_t block = 0; block < problem.blocks; ++block) {
      const float* importance = problem.rows.importance + block * columns;
      for (int lane = 0; lane < kTileRows; lane += kLanes) {
        float* step = steps + block * kTileRows + lane;
        const Floats inverse = Inverse(Load(step), nearest.kPerStep);
        Store(step, BlockSums(nearest, weights + block * columns * kTileRows + lane, importance, columns, inverse).Step());
      }
    }
  });
}

constexpr float kMostMass = 1073741824;  // 2^30

inline void AddHistogram(const Problem& problem, const float* weights, const float* steps, float scale, int64_t* histogram) {
  constexpr int kColumns = 8;  // at a time, by way of memory: lanes are slow to take from a vector
  alignas(64) uint32_t points[kColumns * kLanes];
  alignas(64) uint32_t masses[kColumns * kLanes];
  const int64_t columns = problem.rows.block_size;
  for (int64_t block = 0; block < problem.blocks; ++block) {
    for (int lane = 0; lane < kTileRows; lane += kLanes) {
      const Floats step = Load(steps + block * kTileRows + lane);
      const Floats inverse = Inverse(step, 1);
      const Floats square = step * step;
      for (int64_t first = block * columns; first < (block + 1) * columns; first += kColumns) {
        for (int column = 0; column < kColumns; ++column) {
          const Floats target = Load(weights + (first + column) * kTileRows + lane) * inverse;
          const Ints point = RoundToInt(Max(Min(target, Broadcast(kFarPoint)), Broadcast(-kFarPoint))) + kFarPoint;
          const Floats mass = Broadcast(problem.rows.importance[first + column]) * square * scale;
          const Ints rounded = RoundToInt(Min(mass, Broadcast(kMostMass)));
          std::memcpy(points + column * kLanes, &point, sizeof(point));
          std::memcpy(masses + column * kLanes, &rounded, sizeof(rounded));
        }
        for (int i = 0; i < kColumns * kLanes; ++i) histogram[points[i]] += masses[i];
      }
    }
  }
}

// Steps on the grid that is stored: int8 scales, held as floats, times a row scale.
inline void QuantizeSteps(const float* steps, int64_t blocks, int64_t stride, float* scales, float* row_scale) {
  Floats largest = Broadcast(0);
  for (int64_t block = 0; block < blocks; ++block) largest = Max(Abs(Load(steps + block * stride)), largest);
  const Floats row = largest < kSmallestStep ? Broadcast(0) : largest / 127.0f;
  Store(row_scale, row);
  for (int64_t block = 0; block < blocks; ++block) {
    const Floats scaled = row > 0.0f ? Load(steps + block * stride) / row : Broadcast(0);
    Store(scales + block * stride, ToFloats(RoundToInt(Max(Min(scaled, Broadcast(127)), Broadcast(-127)))));
  }
}

inline void FitTile(const Problem& problem, const Codebook& codebook, const TileBuffers& tile, float* row_scale) {
  const int64_t columns = problem.rows.block_size;
  Search(problem, codebook, kFineCandidates, false, tile.weights, tile.steps);
  for (int refit = 0; refit < kStepRefits; ++refit) RefitSteps(problem, codebook, tile.weights, tile.steps);
  WithNearest(codebook, [&](const auto& nearest) {
    for (int lane = 0; lane < kTileRows; lane += kLanes) {
      QuantizeSteps(tile.steps + lane, problem.blocks, kTileRows, tile.scales + lane, row_scale + lane);
      for (int64_t block = 0; block < problem.blocks; ++block) {
        const Floats inverse = Inverse(Load(tile.scales + block * kTileRows + lane) * Load(row_scale + lane), nearest.kPerStep);
        for (int64_t j = block * columns; j < (block + 1) * columns; ++j) {
          const Ints code = nearest.Code(Load(tile.weights + j * kTileRows + lane) * inverse);
          std::memcpy(tile.codes + j * kTileRows + lane, &code, sizeof(code));
        }
      }
    }
  });
}

inline void AddLanes(Floats v, double* sum) {
  for (int i = 0; i < kLanes; ++i) *sum += static_cast<double>(v[i]);
}

// Sums of a block in float32, of blocks and rows in float64, in an order that does not depend on the width of a vector.
inline void AddSquares(const Problem& problem, const Codebook& codebook, const TileBuffers& tile, const float* row_scale,
                       double* squares) {
  const int64_t columns = problem.rows.block_size;
  for (int64_t block = 0; block < problem.blocks; ++block) {
    for (int lane = 0; lane < kTileRows; lane += kLanes) {
      const Floats step = Load(tile.scales + block * kTileRows + lane) * Load(row_scale + lane);
      Floats sums[4] = {};
      for (int64_t j = block * columns; j < (block + 1) * columns; ++j) {
        Ints code;
        std::memcpy(&code, tile.codes + j * kTileRows + lane, sizeof(code));
        const float importance = problem.rows.importance[j];
        const Floats w = Load(tile.weights + j * kTileRows + lane);
        const Floats error = Gather(codebook.values, code) * step - w;
        const Floats error_square = importance > 0 ? error * error : Broadcast(0);
        const Floats weight_square = importance > 0 ? w * w : Broadcast(0);
        sums[0] += error_square;
        sums[1] += weight_square;
        sums[2] += importance * error_square;
        sums[3] += importance * weight_square;
      }
      for (int i = 0; i < 4; ++i) AddLanes(sums[i], squares + i);
    }
  }
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_TILE_FIT_H_
