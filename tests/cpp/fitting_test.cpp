// The fitting library gives the same bytes on every processor: digests of what it made on one.
#include "fitting/fitting.h"

#include <cmath>
#include <cstddef>

#include "check.h"

namespace edgecomp::test {
namespace {

constexpr int64_t kRows = 40;
constexpr int64_t kColumns = 70;
constexpr int64_t kPadded = 96;

struct Random {
  uint32_t state = 1;
  // A sum of 4 uniform numbers, with a digit that float32 holds.
  float Next() {
    int32_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<int32_t>(state >> 20) - 2048;
    }
    return static_cast<float>(sum) / 8192;
  }
};

template <class T>
void Digest(const std::vector<T>& values, uint64_t* digest) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  for (size_t i = 0; i < values.size() * sizeof(T); ++i) *digest = (*digest ^ bytes[i]) * 1099511628211u;  // FNV-1a
}

uint64_t Fit(int32_t bits, int32_t threads) {
  Random random;
  std::vector<float> weights;
  for (int64_t i = 0; i < kRows * kColumns; ++i) weights.push_back(random.Next());
  std::vector<float> importance(kPadded, 0.0f);
  for (int64_t j = 0; j < kColumns; ++j) importance[static_cast<size_t>(j)] = std::fabs(random.Next()) + 0.125f;
  const ecf_rows rows = {weights.data(), kRows, kColumns, 1.0f, importance.data(), 32, bits, 127, threads};
  std::vector<float> codebook(256);
  CHECK(ecf_fit_codebook(&rows, 4, codebook.data()) == 0);
  const size_t planes = bits == 7 ? 8 : static_cast<size_t>(bits);
  std::vector<uint8_t> codes(3 * 3 * planes * 64);
  std::vector<int8_t> scales(3 * 3 * 16);
  std::vector<float> row_scale(3 * 16);
  std::vector<double> squares(4);
  const ecf_fit fit = {codes.data(), scales.data(), row_scale.data(), squares.data()};
  CHECK(ecf_fit_rows(&rows, codebook.data(), nullptr, &fit) == 0);
  CHECK(squares[0] > 0 && squares[0] < squares[1]);
  uint64_t digest = 14695981039346656037u;
  Digest(codes, &digest);
  Digest(scales, &digest);
  Digest(row_scale, &digest);
  Digest(squares, &digest);
  return digest;
}

TEST(FittedAlikeOnEveryProcessor) {
  constexpr uint64_t kDigests[] = {
      // of 1 to 8 bits
      0x2767cdcecdd374ce, 0x9f198d875de7c064, 0x366a89fdb1e61145, 0x0d7448a87965f3b9,
      0x44528bc9f84502d6, 0xc9ade7cf284b002e, 0xec69b81327c6507f, 0x0016b71d93b42e1b,
  };
  for (int32_t bits = 1; bits <= 8; ++bits) {
    for (const int32_t threads : {1, 3}) {
      const uint64_t digest = Fit(bits, threads);
      CHECK_MESSAGE(digest == kDigests[bits - 1], "%d bits, %d threads: expected digest %016llx, got %016llx", bits, threads,
                    static_cast<unsigned long long>(kDigests[bits - 1]), static_cast<unsigned long long>(digest));
    }
  }
}

}  // namespace
}  // namespace edgecomp::test
