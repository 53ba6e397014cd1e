#include "fitting/fitting.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>

#include "core/isa.h"
#include "fitting/kernels.h"

namespace edgecomp::fitting {
namespace {

constexpr int32_t kOk = 0;
constexpr int32_t kOutOfMemory = 1;
constexpr int64_t kSearchEvery = 3;  // refits between which least squares find the nearest optimum

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

// Runs work(thread, i) for every i below count; threads take what comes next. Where the system gives no more threads, the others do
// it.
template <class Work>
void Parallel(int32_t threads, int64_t count, const Work& work) {
  std::atomic<int64_t> next{0};
  const auto run = [&](int32_t thread) {
    for (int64_t i = next++; i < count; i = next++) work(thread, i);
  };
  struct Helper {
    pthread_t id;
    const decltype(run)* task;
    int32_t thread;
  };
  constexpr int32_t kMostHelpers = 255;
  Helper helpers[kMostHelpers];
  int32_t started = 0;
  for (int32_t thread = 1; thread < std::min<int64_t>({threads, count, kMostHelpers + 1}); ++thread) {
    helpers[started] = {{}, &run, thread};
    const auto begin = [](void* argument) -> void* {
      const auto* helper = static_cast<const Helper*>(argument);
      (*helper->task)(helper->thread);
      return nullptr;
    };
    started += pthread_create(&helpers[started].id, nullptr, begin, &helpers[started]) == 0 ? 1 : 0;
  }
  run(0);
  for (int32_t i = 0; i < started; ++i) pthread_join(helpers[i].id, nullptr);
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

// The codebook of a histogram; its largest entry has the magnitude `largest` at the start, and at most that later.
void EntriesOf(const Kernels& kernels, const KmeansMemory& memory, const int64_t* histogram, int32_t entries, int32_t largest,
               bool start, float* values) {
  double centres[256];
  kernels.kmeans(histogram, entries, memory, centres);
  double peak = 0;
  for (int32_t i = 0; i < entries; ++i) peak = std::max(peak, std::fabs(centres[i]));
  const double factor = start && peak > 0 ? largest / peak : 1;
  for (int32_t i = 0; i < entries; ++i) {
    values[i] = static_cast<float>(std::clamp<double>(std::nearbyint(centres[i] * factor), -largest, largest));
  }
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
  const auto threads = static_cast<size_t>(rows.threads);
  const Array<float> weights = Allocate<float>(tile_weights * static_cast<size_t>(problem.tiles));
  const Array<float> steps = Allocate<float>(tile_steps * static_cast<size_t>(problem.tiles));
  const Array<int64_t> histograms = Allocate<int64_t>(kGridEntries * threads);
  const std::unique_ptr<Codebook> codebook(new (std::nothrow) Codebook);
  constexpr size_t kEdges = kGridEntries + 1;
  const Array<double> doubles = Allocate<double>(kEdges * (kEdges + static_cast<size_t>(entries)));
  if (weights == nullptr || steps == nullptr || histograms == nullptr || codebook == nullptr || doubles == nullptr)
    return kOutOfMemory;
  const KmeansMemory kmeans = {doubles.get(), doubles.get() + kEdges * kEdges};
  float most_important = 0;
  for (int64_t j = 0; j < problem.padded; ++j) most_important = std::max(most_important, rows.importance[j]);
  const auto of_tile = [&](const Array<float>& all, size_t size, int64_t tile) {
    return all.get() + static_cast<size_t>(tile) * size;
  };
  // The codebook of the weights over their steps.
  bool zero = false;
  const auto refit_codebook = [&](bool start, float* refitted) {
    float largest = 0;
    for (size_t i = 0; i < tile_steps * static_cast<size_t>(problem.tiles); ++i) largest = std::max(largest, std::fabs(steps[i]));
    const float bound = most_important * (largest * largest);
    zero = !(bound > 0);
    int exponent = 0;
    std::frexp(bound, &exponent);
    // Masses up to 2^29, as integers: their sums have no order.
    const float scale = zero ? 0 : std::ldexp(1.0f, std::clamp(29 - exponent, -126, 126));
    std::fill(histograms.get(), histograms.get() + kGridEntries * threads, 0);
    Parallel(rows.threads, problem.tiles, [&](int32_t thread, int64_t i) {
      kernels.add_histogram(problem, of_tile(weights, tile_weights, i), of_tile(steps, tile_steps, i), scale,
                            histograms.get() + thread * kGridEntries);
    });
    for (size_t thread = 1; thread < threads; ++thread) {
      for (size_t i = 0; i < size_t{kGridEntries}; ++i) histograms[i] += histograms[thread * size_t{kGridEntries} + i];
    }
    EntriesOf(kernels, kmeans, histograms.get(), entries, rows.largest_entry, start, refitted);
  };
  Parallel(rows.threads, problem.tiles, [&](int32_t, int64_t i) {
    kernels.load_tile(problem, i, of_tile(weights, tile_weights, i));
    kernels.first_steps(problem, of_tile(weights, tile_weights, i), of_tile(steps, tile_steps, i));
  });
  float now[256];
  refit_codebook(true, now);
  std::copy(now, now + entries, values);
  if (zero || refits == 0) return kOk;
  const float factor = 127.0f / static_cast<float>(rows.largest_entry);
  for (size_t i = 0; i < tile_steps * static_cast<size_t>(problem.tiles); ++i) steps[i] *= factor;
  int64_t most = -1;
  for (int64_t refit = 0; refit <= refits; ++refit) {
    SetEntries(now, entries, codebook.get());
    const bool search = refit % kSearchEvery == kSearchEvery - 1 || refit == refits;
    std::atomic<int64_t> gains{0};
    Parallel(rows.threads, problem.tiles, [&](int32_t, int64_t i) {
      const auto steps_of = search ? kernels.search_steps : kernels.refit_steps;
      gains += steps_of(problem, *codebook, of_tile(weights, tile_weights, i), of_tile(steps, tile_steps, i));
    });
    if (gains > most) {
      most = gains;
      std::copy(now, now + entries, values);
    }
    if (refit == refits) break;
    float refitted[256];
    refit_codebook(false, refitted);
    if (zero || (search && std::equal(refitted, refitted + entries, now))) break;
    std::copy(refitted, refitted + entries, now);
  }
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
  Parallel(threads, groups, [&](int32_t thread, int64_t group) {
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

int32_t ecf_abi_version(void) { return 1; }

const char* ecf_variant(void) {
  const char* name = nullptr;
  return edgecomp::fitting::SelectedKernels(&name) == nullptr ? nullptr : name;
}

int32_t ecf_fit_codebook(const ecf_rows* rows, int64_t refits, float* codebook) {
  return edgecomp::fitting::FitCodebook(*rows, refits, codebook);
}

int32_t ecf_fit_rows(const ecf_rows* rows, const float* codebook, const ecf_hessian* hessian, const ecf_fit* fit) {
  return edgecomp::fitting::FitRows(*rows, codebook, hessian, *fit);
}

void ecf_pack_panels(const float* matrix, int64_t k, float* panels) {
  constexpr int64_t kWidth = 8;
  for (int64_t first = 0; first < k; first += kWidth) {
    for (int64_t i = 0; i < k; ++i) std::memcpy(panels + first * k + i * kWidth, matrix + i * k + first, kWidth * sizeof(float));
  }
}
