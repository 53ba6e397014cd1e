#include "fitting/fitting.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "core/isa.h"
#include "fitting/kernels.h"
#include "fitting/team.h"

namespace edgecomp::fitting {
namespace {

constexpr int32_t kOk = 0;
constexpr int32_t kOutOfMemory = 1;
// How much further than to the centres entries go: codebook and steps follow each other, by little in a round and in one direction.
// What a large stride upsets, one without any puts right.
constexpr double kStrides[] = {1, 4, 0};
constexpr int kMassBits = 26;  // of the largest mass of a histogram at the start

const Kernels* SelectedKernels(const char** name) {
  Isa isa = Isa::kRef;
  if (SelectedIsa(&isa) != EC_OK) return nullptr;
#if defined(__x86_64__)
  if (isa <= Isa::kAvx512Vnni) {
    *name = "avx512";
    return &kAvx512Kernels;
  }
  if (isa <= Isa::kAvx2) {
    *name = "avx2";
    return &kAvx2Kernels;
  }
#endif
  *name = "ref";
  return &kRefKernels;
}

const Kernels& Chosen() {
  const char* name = nullptr;
  const Kernels* kernels = SelectedKernels(&name);
  return kernels == nullptr ? kRefKernels : *kernels;  // ecf_variant told the caller
}

Problem ProblemOf(const ecf_rows& rows) {
  const int64_t padded = (rows.k + kSpanColumns - 1) / kSpanColumns * kSpanColumns;
  return {rows, padded, padded / rows.block_size, (rows.n + kTileRows - 1) / kTileRows};
}

struct AlignedDelete {
  void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};
template <class T>
using Array = std::unique_ptr<T[], AlignedDelete>;

template <class T>
Array<T> Allocate(size_t count) {
  return Array<T>(static_cast<T*>(::operator new[](std::max<size_t>(count, 1) * sizeof(T), std::align_val_t{64}, std::nothrow)));
}

void SetEntries(const float* values, int32_t entries, Codebook* codebook) {
  codebook->entries = entries;
  std::copy(values, values + entries, codebook->values);
  for (int32_t i = 0; i + 1 < entries; ++i) codebook->boundaries[i] = (values[i + 1] + values[i]) / 2;
  int32_t code = 0;
  for (int cell = 0; cell < kCells; ++cell) {
    // Its largest target, (cell - 255) / 2.
    while (code + 1 < entries && static_cast<float>(cell - (kCells / 2 - 1)) / 2 > codebook->boundaries[code]) ++code;
    codebook->nearest[cell] = values[code];
    codebook->nearest_code[cell] = static_cast<float>(code);
  }
}

// Centres of a histogram's targets, ascending. Targets beyond the grid count as its ends, which lie where their targets do on
// average.
void CentresOf(const Kernels& kernels, const KmeansMemory& memory, const int64_t* histogram, int32_t entries, double* centres) {
  constexpr int kEnd = kGridEntries / 2;
  int64_t mass[kGridEntries];
  double points[kGridEntries];
  std::copy(histogram + kFarPoint - kEnd, histogram + kFarPoint + kEnd + 1, mass);
  for (int i = 0; i < kGridEntries; ++i) points[i] = i - kEnd;
  for (const int sign : {-1, 1}) {
    int64_t* end = mass + kEnd + sign * kEnd;
    int64_t beyond = 0;
    for (int distance = 1; distance <= kFarPoint - kEnd; ++distance) {
      const int64_t at = histogram[kFarPoint + sign * (kEnd + distance)];
      *end += at;
      beyond += at * distance;
    }
    if (*end > 0) points[kEnd + sign * kEnd] += sign * (static_cast<double>(beyond) / static_cast<double>(*end));
  }
  kernels.kmeans(mass, points, entries, memory, centres);
  std::sort(centres, centres + entries);
}

float Entry(double centre, int32_t largest) {
  return static_cast<float>(std::clamp<double>(std::nearbyint(centre), -largest, largest));
}

int32_t FitCodebook(const ecf_rows& rows, int64_t refits, float* values) {
  const Problem problem = ProblemOf(rows);
  const Kernels& kernels = Chosen();
  const int32_t entries = rows.bits == 8 ? kGridEntries : 1 << rows.bits;
  if (rows.bits == 8) {
    for (int32_t i = 0; i < entries; ++i) values[i] = static_cast<float>(i - 127);
    return kOk;
  }
  const size_t tile_weights = static_cast<size_t>(problem.padded) * kTileRows;
  const size_t tile_steps = static_cast<size_t>(problem.blocks) * kTileRows;
  const auto threads = static_cast<size_t>(std::min<int64_t>(rows.threads, problem.tiles));
  const size_t all_steps = tile_steps * static_cast<size_t>(problem.tiles);
  const Array<float> weights = Allocate<float>(tile_weights * static_cast<size_t>(problem.tiles));
  const Array<float> steps = Allocate<float>(all_steps);
  const Array<int64_t> histograms = Allocate<int64_t>(kPoints * threads);
  const std::unique_ptr<Codebook> codebook(new (std::nothrow) Codebook);
  const Array<double> doubles = Allocate<double>(KmeansMemory::DoubleCount(static_cast<size_t>(entries)));
  if (weights == nullptr || steps == nullptr || histograms == nullptr || codebook == nullptr || doubles == nullptr)
    return kOutOfMemory;
  const KmeansMemory kmeans = {doubles.get(), doubles.get() + KmeansMemory::kCosts};
  Team team(static_cast<int64_t>(threads));
  const auto weights_of = [&](int64_t tile) { return weights.get() + static_cast<size_t>(tile) * tile_weights; };
  const auto steps_of = [&](int64_t tile) { return steps.get() + static_cast<size_t>(tile) * tile_steps; };
  team.Run(problem.tiles, [&](int32_t, int64_t i) {
    kernels.load_tile(problem, i, weights_of(i));
    kernels.first_steps(problem, weights_of(i), steps_of(i));
  });
  // Masses are integers: their sums have no order.
  const float most_important = *std::max_element(rows.importance, rows.importance + problem.padded);
  float largest = 0;
  for (size_t i = 0; i < all_steps; ++i) largest = std::max(largest, std::fabs(steps[i]));
  const float to_entries = 127.0f / static_cast<float>(rows.largest_entry);
  largest *= to_entries;
  const float bound = most_important * (largest * largest);
  int exponent = 0;
  std::frexp(bound, &exponent);
  const float scale = bound > 0 ? std::ldexp(1.0f, std::clamp(kMassBits - exponent, -126, 126)) : 0;
  // Centres of the weights over their steps, as `prepare` leaves them.
  double centres[256];
  const auto find_centres = [&](const auto& prepare) {
    std::fill(histograms.get(), histograms.get() + kPoints * threads, 0);
    team.Run(problem.tiles, [&](int32_t thread, int64_t i) {
      prepare(i);
      kernels.add_histogram(problem, weights_of(i), steps_of(i), scale, histograms.get() + thread * kPoints);
    });
    for (size_t thread = 1; thread < threads; ++thread) {
      for (size_t i = 0; i < size_t{kPoints}; ++i) histograms[i] += histograms[thread * size_t{kPoints} + i];
    }
    CentresOf(kernels, kmeans, histograms.get(), entries, centres);
  };
  find_centres([](int64_t) {});
  double peak = 0;
  for (int32_t i = 0; i < entries; ++i) peak = std::max(peak, std::fabs(centres[i]));
  const double factor = peak > 0 ? rows.largest_entry / peak : 1;
  float now[256];
  for (int32_t i = 0; i < entries; ++i) now[i] = Entry(centres[i] * factor, rows.largest_entry);
  std::copy(now, now + entries, values);
  if (!(bound > 0) || refits == 0) return kOk;
  for (size_t i = 0; i < all_steps; ++i) steps[i] *= to_entries;
  int64_t most = -1;
  for (int64_t round = 0; round <= refits; ++round) {
    SetEntries(now, entries, codebook.get());
    std::atomic<int64_t> gains{0};
    const auto search = [&](int64_t i) { gains += kernels.search_steps(problem, *codebook, round, weights_of(i), steps_of(i)); };
    if (round < refits) {
      find_centres(search);
    } else {
      team.Run(problem.tiles, [&](int32_t, int64_t i) { search(i); });
    }
    if (gains > most) {
      most = gains;
      std::copy(now, now + entries, values);
    }
    if (round == refits) break;
    const double stride = kStrides[round % 3];
    for (int32_t i = 0; i < entries; ++i) {
      now[i] = Entry(centres[i] + stride * (centres[i] - static_cast<double>(now[i])), rows.largest_entry);
    }
    std::sort(now, now + entries);
  }
  return kOk;
}

int32_t Kmeans(const int64_t* mass, const double* points, int32_t clusters, double* centres) {
  const Array<double> doubles = Allocate<double>(KmeansMemory::DoubleCount(static_cast<size_t>(clusters)));
  if (doubles == nullptr) return kOutOfMemory;
  Chosen().kmeans(mass, points, clusters, {doubles.get(), doubles.get() + KmeansMemory::kCosts}, centres);
  std::sort(centres, centres + clusters);
  return kOk;
}

int32_t FitRows(const ecf_rows& rows, const float* values, const ecf_hessian* hessian, const ecf_fit& fit) {
  const Problem problem = ProblemOf(rows);
  const Kernels& kernels = Chosen();
  constexpr int kGroup = 3;  // tiles that are fitted together
  const auto padded = static_cast<size_t>(problem.padded) * kTileRows;
  const auto blocks = static_cast<size_t>(problem.blocks) * kTileRows;
  const size_t tile_floats = padded + 2 * blocks;
  const size_t floats = kGroup * (tile_floats + kTileRows) + (hessian == nullptr ? 0 : kernels.compensate_floats(problem));
  const int64_t groups = (problem.tiles + kGroup - 1) / kGroup;
  const auto threads = static_cast<int32_t>(std::min<int64_t>(rows.threads, groups));
  const Array<float> all_floats = Allocate<float>(floats * static_cast<size_t>(threads));
  const Array<int32_t> all_codes = Allocate<int32_t>(kGroup * padded * static_cast<size_t>(threads));
  if (all_floats == nullptr || all_codes == nullptr) return kOutOfMemory;
  const Array<double> squares = Allocate<double>(static_cast<size_t>(groups) * 6);
  const std::unique_ptr<Codebook> codebook(new (std::nothrow) Codebook);
  if (squares == nullptr || codebook == nullptr) return kOutOfMemory;
  std::fill(squares.get(), squares.get() + groups * 6, 0.0);
  SetEntries(values, rows.bits == 8 ? kGridEntries : 1 << rows.bits, codebook.get());
  const int64_t planes = rows.bits == 7 ? 8 : rows.bits;
  const int64_t tile_bytes = problem.padded / kSpanColumns * planes * 64;
  Team team(threads);
  team.Run(groups, [&](int32_t thread, int64_t group) {
    TileBuffers tiles[kGroup];
    float* row_scales[kGroup];
    const int64_t first = group * kGroup;
    const int count = static_cast<int>(std::min<int64_t>(kGroup, problem.tiles - first));
    float* free = all_floats.get() + static_cast<size_t>(thread) * floats;
    int32_t* codes = all_codes.get() + static_cast<size_t>(thread) * kGroup * padded;
    for (int t = 0; t < kGroup; ++t) {
      tiles[t] = {free, free + padded, free + padded + blocks, codes + static_cast<size_t>(t) * padded};
      row_scales[t] = free + tile_floats;
      free += tile_floats + kTileRows;
      if (t >= count) {
        std::fill(tiles[t].weights, free, 0.0f);
        std::fill(tiles[t].codes, tiles[t].codes + padded, 0);
        continue;
      }
      kernels.load_tile(problem, first + t, tiles[t].weights);
      kernels.fit_tile(problem, *codebook, tiles[t], row_scales[t]);
    }
    double* sums = squares.get() + group * 6;
    if (hessian != nullptr) kernels.compensate(problem, *codebook, *hessian, tiles, row_scales, free, sums + 4);
    for (int t = 0; t < count; ++t) {
      const int64_t tile = first + t;
      kernels.add_squares(problem, *codebook, tiles[t], row_scales[t], sums);
      kernels.pack_tile(problem, *codebook, tile, tiles[t].codes, fit.codes + tile * tile_bytes);
      int8_t* scales = fit.scales + static_cast<size_t>(tile) * blocks;
      for (size_t i = 0; i < blocks; ++i) scales[i] = static_cast<int8_t>(tiles[t].scales[i]);
      for (int r = 0; r < kTileRows; ++r) fit.row_scale[tile * kTileRows + r] = row_scales[t][r] / rows.scale;
    }
  });
  std::fill(fit.squares, fit.squares + 4, 0.0);
  for (int64_t group = 0; group < groups; ++group) {
    const double* sums = squares.get() + group * 6;
    for (int i = 0; i < 4; ++i) fit.squares[i] += sums[i >= 2 && hessian != nullptr ? i + 2 : i];
  }
  return kOk;
}

}  // namespace
}  // namespace edgecomp::fitting

int32_t ecf_abi_version(void) { return 2; }

const char* ecf_variant(void) {
  const char* name = nullptr;
  return edgecomp::fitting::SelectedKernels(&name) == nullptr ? nullptr : name;
}

int32_t ecf_fit_codebook(const ecf_rows* rows, int64_t refits, float* codebook) {
  return edgecomp::fitting::FitCodebook(*rows, refits, codebook);
}

int32_t ecf_kmeans(const int64_t* mass, const double* points, int32_t clusters, double* centres) {
  return edgecomp::fitting::Kmeans(mass, points, clusters, centres);
}

int32_t ecf_fit_rows(const ecf_rows* rows, const float* codebook, const ecf_hessian* hessian, const ecf_fit* fit) {
  return edgecomp::fitting::FitRows(*rows, codebook, hessian, *fit);
}

void ecf_pack_panels(const float* matrix, int64_t k, float* panels) {
  constexpr int64_t kWidth = 8;
  constexpr int64_t kRows = 32;  // at a time, so that cache lines and pages of a row serve several panels
  for (int64_t rows = 0; rows < k; rows += kRows) {
    for (int64_t first = 0; first < k; first += kWidth) {
      for (int64_t i = rows; i < rows + kRows; ++i) {
        std::memcpy(panels + first * k + i * kWidth, matrix + i * k + first, kWidth * sizeof(float));
      }
    }
  }
}

void ecf_pack_factor(const double* reversed, int64_t k, float* panels) {
  constexpr int64_t kWidth = 8;
  for (int64_t first = 0; first < k; first += kWidth) {
    for (int64_t i = 0; i < first + kWidth; ++i) {
      for (int64_t j = first; j < first + kWidth; ++j) {
        panels[first * k + i * kWidth + j - first] = i > j ? 0.0f : static_cast<float>(reversed[(k - 1 - j) * k + (k - 1 - i)]);
      }
    }
  }
}
