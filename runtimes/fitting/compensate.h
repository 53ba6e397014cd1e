// The fit of 48 rows to a Hessian: codes column by column with the error of each made good by those behind it (GPTQ), then in turns
// steps by least squares and codes by coordinate descent. The formulas are in edgecomp/fitting/compensation.py; the work is
// arranged so that nearly all of it is products of 48 rows with panels of 8 columns of H or of R, where H = R R^T and R is upper
// triangular:
//
//   GPTQ           w' - w = e is chosen in order so that (e R)_j = e_j R_jj + sum over i < j of e_i R_ij is near 0      K / 2 a
//   weight w H            once, for the right-hand sides of all steps                                                         K
//   steps          blocks of V H V^T, of which half is enough                                                          K / 2 a
//   round descent        (e H)_j when column j's turn comes                                                                  K a
//   round
#ifndef EDGECOMP_FITTING_COMPENSATE_H_
#define EDGECOMP_FITTING_COMPENSATE_H_

#include "fitting/tile_fit.h"

namespace edgecomp::fitting::FITTING_ISA {

constexpr int kPanelRows = 3 * kTileRows;
constexpr int kPanelColumns = 8;
constexpr int kRounds = 2;
constexpr float kRidge = 1e-4f;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kColumnsAtOnce = 8;  // 24 of 32 registers are sums
#else
constexpr int kColumnsAtOnce = 4;  // 12 of 16
#endif

// sums[c] += sum over first <= i < last of left[i] panel[i][c], columns of 3 vectors from `lane` on.
template <class Function>
inline void MultiplyPanel(const float* left, const float* panel, int64_t first, int64_t last, const Function& use) {
  for (int lane = 0; lane < kPanelRows; lane += 3 * kLanes) {
    for (int column = 0; column < kPanelColumns; column += kColumnsAtOnce) {
      Floats sums[kColumnsAtOnce][3] = {};
      for (int64_t i = first; i < last; ++i) {
        const float* rows = left + i * kPanelRows + lane;
        const Floats a = Load(rows);
        const Floats b = Load(rows + kLanes);
        const Floats c = Load(rows + 2 * kLanes);
        for (int k = 0; k < kColumnsAtOnce; ++k) {
          const Floats factor = Broadcast(panel[i * kPanelColumns + column + k]);
          sums[k][0] = MultiplyAdd(a, factor, sums[k][0]);
          sums[k][1] = MultiplyAdd(b, factor, sums[k][1]);
          sums[k][2] = MultiplyAdd(c, factor, sums[k][2]);
        }
      }
      for (int k = 0; k < kColumnsAtOnce; ++k) use(column + k, lane, sums[k]);
    }
  }
}

inline void StoreProduct(const float* left, const float* panel, int64_t first, int64_t last, float* product) {
  MultiplyPanel(left, panel, first, last, [product](int column, int lane, const Floats* sums) {
    for (int v = 0; v < 3; ++v) Store(product + column * kPanelRows + lane + v * kLanes, sums[v]);
  });
}

// A thread's memory. All of [rows of the name][48].
struct Panel {
  Panel(const Problem& problem, float* memory)
      : weights(memory),
        weights_by_hessian(weights + problem.padded * kPanelRows),
        errors(weights_by_hessian + problem.padded * kPanelRows),
        values(errors + problem.padded * kPanelRows),
        steps(values + problem.padded * kPanelRows),
        scales(steps + problem.blocks * kPanelRows),
        solution(scales + problem.blocks * kPanelRows),
        gradient(solution + problem.blocks * kPanelRows),
        ridge(gradient + problem.blocks * kPanelRows),
        row_scale(ridge + problem.blocks * kPanelRows),
        product(row_scale + kPanelRows),
        normal(product + kPanelColumns * kPanelRows) {}

  static size_t FloatCount(const Problem& problem) {
    const auto k = static_cast<size_t>(problem.padded);
    const auto blocks = static_cast<size_t>(problem.blocks);
    return (4 * k + 5 * blocks + 1 + kPanelColumns + blocks * (blocks + 1) / 2) * kPanelRows;
  }

  float* weights;             // [K]
  float* weights_by_hessian;  // [K]
  float* errors;              // [K]
  float* values;              // [K]: entries
  float* steps;               // [blocks]
  float* scales;              // [blocks]
  float* solution;            // [blocks]
  float* gradient;            // [blocks]
  float* ridge;               // [blocks]
  float* row_scale;           // [1]
  float* product;             // [8]
  float* normal;              // [blocks (blocks + 1) / 2]: of the lower triangle of the normal equations, then of its factor
};

// Codes in order, the errors of columns before made good by each.
template <class Nearest>
void Spread(const Problem& problem, const Nearest& nearest, const float* factor_panels, const Panel& p) {
  const int64_t k = problem.padded;
  for (int64_t first = 0; first < k; first += kPanelColumns) {
    const float* panel = factor_panels + first * k;
    StoreProduct(p.errors, panel, 0, first, p.product);
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      const float* step_row = p.steps + first / problem.rows.block_size * kPanelRows + lane;
      const Floats step = Load(step_row);
      const Floats inverse = Inverse(step, nearest.kPerStep);
      for (int column = 0; column < kPanelColumns; ++column) {
        const int64_t j = first + column;
        const float* factor = panel + j * kPanelColumns;
        const Floats w = Load(p.weights + j * kPanelRows + lane);
        const Floats target = w - Load(p.product + column * kPanelRows + lane) * (1 / factor[column]);
        const Floats value = nearest.Value(target * inverse);
        const Floats error = value * step - w;
        Store(p.values + j * kPanelRows + lane, value);
        Store(p.errors + j * kPanelRows + lane, error);
        for (int behind = column + 1; behind < kPanelColumns; ++behind) {
          float* sum = p.product + behind * kPanelRows + lane;
          Store(sum, MultiplyAdd(error, Broadcast(factor[behind]), Load(sum)));
        }
      }
    }
  }
}

// Every weight takes the entry nearest to what is best for it while all others stay.
template <class Nearest>
void Descend(const Problem& problem, const Nearest& nearest, const float* panels, const Panel& p) {
  const int64_t k = problem.padded;
  for (int64_t first = 0; first < k; first += kPanelColumns) {
    const float* panel = panels + first * k;
    StoreProduct(p.errors, panel, 0, k, p.product);
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      const Floats step = Load(p.steps + first / problem.rows.block_size * kPanelRows + lane);
      const Floats inverse = Inverse(step, nearest.kPerStep);
      for (int column = 0; column < kPanelColumns; ++column) {
        const int64_t j = first + column;
        const float* hessian = panel + j * kPanelColumns;
        const Floats w = Load(p.weights + j * kPanelRows + lane);
        const Floats before = Load(p.errors + j * kPanelRows + lane);
        const Floats target = (w + before) - Load(p.product + column * kPanelRows + lane) * (1 / hessian[column]);
        const Floats value = nearest.Value(target * inverse);
        const Floats error = value * step - w;
        const Floats change = error - before;
        Store(p.values + j * kPanelRows + lane, value);
        Store(p.errors + j * kPanelRows + lane, error);
        for (int behind = column + 1; behind < kPanelColumns; ++behind) {
          float* sum = p.product + behind * kPanelRows + lane;
          Store(sum, MultiplyAdd(change, Broadcast(hessian[behind]), Load(sum)));
        }
      }
    }
  }
}

inline int64_t Lower(int64_t row, int64_t column) { return (row * (row + 1) / 2 + column) * kPanelRows; }

// The normal equations of the steps: normal = blocks of V H V^T, solution = sums of V (w H) over blocks.
inline void NormalEquations(const Problem& problem, const float* panels, const Panel& p) {
  const int64_t columns = problem.rows.block_size;
  std::memset(p.normal, 0, sizeof(float) * static_cast<size_t>(Lower(problem.blocks, 0)));
  for (int64_t block = 0; block < problem.blocks; ++block) {
    for (int64_t j = block * columns; j < (block + 1) * columns; j += kPanelColumns) {
      for (int64_t other = 0; other <= block; ++other) {
        float* normal = p.normal + Lower(block, other);
        MultiplyPanel(p.values, panels + j * problem.padded, other * columns, (other + 1) * columns,
                      [&](int column, int lane, const Floats* sums) {
                        for (int v = 0; v < 3; ++v) {
                          float* sum = normal + lane + v * kLanes;
                          const Floats value = Load(p.values + (j + column) * kPanelRows + lane + v * kLanes);
                          Store(sum, MultiplyAdd(sums[v], value, Load(sum)));
                        }
                      });
      }
    }
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      Floats sum = {};
      for (int64_t j = block * columns; j < (block + 1) * columns; ++j) {
        sum = MultiplyAdd(Load(p.values + j * kPanelRows + lane), Load(p.weights_by_hessian + j * kPanelRows + lane), sum);
      }
      Store(p.solution + block * kPanelRows + lane, sum);
    }
  }
}

inline Floats Root(Floats v) {
  for (int i = 0; i < kLanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
}

// Cholesky's factorisation of normal + ridge in place; rows whose system is not positive definite in float32 are told by `usable`
// 0.
inline void Factorize(int64_t blocks, const Panel& p, float* usable) {
  for (int lane = 0; lane < kPanelRows; lane += kLanes) {
    Floats good = Broadcast(1);
    for (int64_t i = 0; i < blocks; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const float* left = p.normal + Lower(i, 0) + lane;
        const float* right = p.normal + Lower(j, 0) + lane;
        Floats sum = Load(left + j * kPanelRows);
        if (i == j) sum += Load(p.ridge + i * kPanelRows + lane);
        for (int64_t k = 0; k < j; ++k) sum = MultiplyAdd(-Load(left + k * kPanelRows), Load(right + k * kPanelRows), sum);
        if (i == j) {
          good = sum > 0.0f ? good : Broadcast(0);
          sum = Root(sum > 0.0f ? sum : Broadcast(1));
        } else {
          sum = sum / Load(right + j * kPanelRows);
        }
        Store(p.normal + Lower(i, j) + lane, sum);
      }
    }
    Store(usable + lane, good);
  }
}

// Forward and backward substitution in place of p.solution.
inline void Substitute(int64_t blocks, const Panel& p) {
  for (int lane = 0; lane < kPanelRows; lane += kLanes) {
    for (int64_t i = 0; i < blocks; ++i) {
      Floats sum = Load(p.solution + i * kPanelRows + lane);
      for (int64_t j = 0; j < i; ++j) {
        sum = MultiplyAdd(-Load(p.normal + Lower(i, j) + lane), Load(p.solution + j * kPanelRows + lane), sum);
      }
      Store(p.solution + i * kPanelRows + lane, sum / Load(p.normal + Lower(i, i) + lane));
    }
    for (int64_t i = blocks - 1; i >= 0; --i) {
      const Floats solved = Load(p.solution + i * kPanelRows + lane) / Load(p.normal + Lower(i, i) + lane);
      Store(p.solution + i * kPanelRows + lane, solved);
      for (int64_t j = 0; j < i; ++j) {
        float* sum = p.solution + j * kPanelRows + lane;
        Store(sum, MultiplyAdd(-Load(p.normal + Lower(i, j) + lane), solved, Load(sum)));
      }
    }
  }
}

// Least-squares steps on the stored grid; a row keeps its own where rounding to the grid would make its error larger.
inline void RefitStepsToHessian(const Problem& problem, const float* panels, const Panel& p) {
  const int64_t blocks = problem.blocks;
  NormalEquations(problem, panels, p);
  float usable[kPanelRows];
  for (int lane = 0; lane < kPanelRows; lane += kLanes) {
    // gradient = normal steps - right; ridge; right += ridge steps
    Floats trace = {};
    for (int64_t i = 0; i < blocks; ++i) {
      trace += Load(p.normal + Lower(i, i) + lane);
      Store(p.gradient + i * kPanelRows + lane, -Load(p.solution + i * kPanelRows + lane));
    }
    const Floats common = trace * (kRidge / static_cast<float>(blocks));
    for (int64_t i = 0; i < blocks; ++i) {
      const Floats step = Load(p.steps + i * kPanelRows + lane);
      Floats sum = Load(p.gradient + i * kPanelRows + lane);
      for (int64_t j = 0; j <= i; ++j) {
        const Floats element = Load(p.normal + Lower(i, j) + lane);
        sum = MultiplyAdd(element, Load(p.steps + j * kPanelRows + lane), sum);
        if (j == i) continue;
        float* mirrored = p.gradient + j * kPanelRows + lane;
        Store(mirrored, MultiplyAdd(element, step, Load(mirrored)));
      }
      Store(p.gradient + i * kPanelRows + lane, sum);
      const auto empty = Load(p.normal + Lower(i, i) + lane) <= 0.0f;
      Store(p.ridge + i * kPanelRows + lane, empty ? Broadcast(1) : common);
      float* right = p.solution + i * kPanelRows + lane;
      Store(right, empty ? step : MultiplyAdd(common, step, Load(right)));
    }
  }
  Factorize(blocks, p, usable);
  Substitute(blocks, p);
  float row_scale[kPanelRows];
  for (int lane = 0; lane < kPanelRows; lane += kLanes) {
    float* scales = p.solution + lane;
    QuantizeSteps(p.solution + lane, blocks, kPanelRows, scales, row_scale + lane);
    const Floats row = Load(row_scale + lane);
    // The loss changes by 2 d . gradient + d normal d, where normal = L L^T - ridge.
    Floats change = {};
    for (int64_t j = 0; j < blocks; ++j) {
      Floats projected = {};
      for (int64_t i = j; i < blocks; ++i) {
        const Floats difference = Load(scales + i * kPanelRows) * row - Load(p.steps + i * kPanelRows + lane);
        projected = MultiplyAdd(Load(p.normal + Lower(i, j) + lane), difference, projected);
      }
      const Floats difference = Load(scales + j * kPanelRows) * row - Load(p.steps + j * kPanelRows + lane);
      change += projected * projected - Load(p.ridge + j * kPanelRows + lane) * difference * difference +
                2.0f * difference * Load(p.gradient + j * kPanelRows + lane);
    }
    const auto accepted = (change < 0.0f) & (Load(usable + lane) > 0.0f);
    const Floats kept_row = accepted ? row : Load(p.row_scale + lane);
    Store(p.row_scale + lane, kept_row);
    for (int64_t i = 0; i < blocks; ++i) {
      float* kept = p.scales + i * kPanelRows + lane;
      const Floats scale = accepted ? Load(scales + i * kPanelRows) : Load(kept);
      Store(kept, scale);
      Store(p.steps + i * kPanelRows + lane, scale * kept_row);
    }
  }
  for (int64_t j = 0; j < problem.padded; ++j) {
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      const Floats step = Load(p.steps + j / problem.rows.block_size * kPanelRows + lane);
      Store(p.errors + j * kPanelRows + lane,
            Load(p.values + j * kPanelRows + lane) * step - Load(p.weights + j * kPanelRows + lane));
    }
  }
}

// sum of e H e^T = sum over j of e_j (H_jj e_j + 2 sum over i < j of e_i H_ij), and of w H w^T.
inline void AddWeightedSquares(const Problem& problem, const float* panels, const Panel& p, double* squares) {
  for (int64_t first = 0; first < problem.padded; first += kPanelColumns) {
    const float* panel = panels + first * problem.padded;
    StoreProduct(p.errors, panel, 0, first, p.product);
    for (int lane = 0; lane < kPanelRows; lane += kLanes) {
      Floats errors = {};
      Floats weights = {};
      for (int column = 0; column < kPanelColumns; ++column) {
        const int64_t j = first + column;
        const float* hessian = panel + j * kPanelColumns;
        const Floats error = Load(p.errors + j * kPanelRows + lane);
        errors += error * (error * hessian[column] + 2.0f * Load(p.product + column * kPanelRows + lane));
        weights += Load(p.weights + j * kPanelRows + lane) * Load(p.weights_by_hessian + j * kPanelRows + lane);
        for (int behind = column + 1; behind < kPanelColumns; ++behind) {
          float* sum = p.product + behind * kPanelRows + lane;
          Store(sum, MultiplyAdd(error, Broadcast(hessian[behind]), Load(sum)));
        }
      }
      AddLanes(errors, squares);
      AddLanes(weights, squares + 1);
    }
  }
}

inline void CompensatePanel(const Problem& problem, const Codebook& codebook, const ecf_hessian& hessian, const TileBuffers* tiles,
                            float* const* row_scales, float* workspace, double* squares) {
  const Panel p(problem, workspace);
  const auto tile_bytes = sizeof(float) * kTileRows;
  for (int t = 0; t < 3; ++t) {
    for (int64_t j = 0; j < problem.padded; ++j) {
      std::memcpy(p.weights + j * kPanelRows + t * kTileRows, tiles[t].weights + j * kTileRows, tile_bytes);
    }
    for (int64_t i = 0; i < problem.blocks; ++i) {
      std::memcpy(p.scales + i * kPanelRows + t * kTileRows, tiles[t].scales + i * kTileRows, tile_bytes);
    }
    std::memcpy(p.row_scale + t * kTileRows, row_scales[t], tile_bytes);
  }
  for (int64_t i = 0; i < problem.blocks; ++i) {
    for (int r = 0; r < kPanelRows; ++r) p.steps[i * kPanelRows + r] = p.scales[i * kPanelRows + r] * p.row_scale[r];
  }
  for (int64_t first = 0; first < problem.padded; first += kPanelColumns) {
    StoreProduct(p.weights, hessian.panels + first * problem.padded, 0, problem.padded, p.weights_by_hessian + first * kPanelRows);
  }
  WithNearest(codebook, [&](const auto& nearest) {
    Spread(problem, nearest, hessian.factor_panels, p);
    for (int round = 0; round < kRounds; ++round) {
      RefitStepsToHessian(problem, hessian.panels, p);
      Descend(problem, nearest, hessian.panels, p);
    }
    for (int64_t j = 0; j < problem.padded; ++j) {
      for (int r = 0; r < kPanelRows; r += kLanes) {
        // An entry is its own target.
        const Ints code = nearest.Code(Load(p.values + j * kPanelRows + r) * nearest.kPerStep);
        std::memcpy(tiles[r / kTileRows].codes + j * kTileRows + r % kTileRows, &code, sizeof(code));
      }
    }
  });
  AddWeightedSquares(problem, hessian.panels, p, squares);
  for (int t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < problem.blocks; ++i) {
      std::memcpy(tiles[t].scales + i * kTileRows, p.scales + i * kPanelRows + t * kTileRows, tile_bytes);
    }
    std::memcpy(row_scales[t], p.row_scale + t * kTileRows, tile_bytes);
  }
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_COMPENSATE_H_
