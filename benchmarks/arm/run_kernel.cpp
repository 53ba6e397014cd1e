// Multiplies one row of x by a packed matrix through the C interface, as often as asked:
//
//   run_kernel N K BITS BLOCK_SIZE LARGEST ITERATIONS
//
// LARGEST is the largest magnitude in the codebook. Writes the variant that ran.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "edgecomp/edgecomp.h"
#include "runner/count_mark.h"

namespace {

void Require(ec_status status) {
  if (status == EC_OK) return;
  std::fprintf(stderr, "run_kernel: %s\n", ec_status_message(status));
  std::exit(1);
}

// Numbers that look random and are the same everywhere: a linear congruential generator.
uint32_t NextWord() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state >> 32);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: run_kernel N K BITS BLOCK_SIZE LARGEST ITERATIONS\n");
    return 2;
  }
  const int64_t n = std::atoll(argv[1]), k = std::atoll(argv[2]), block_size = std::atoll(argv[4]);
  const int32_t bits = std::atoi(argv[3]), largest = std::atoi(argv[5]), iterations = std::atoi(argv[6]);
  const bool wide = bits >= 7;
  const size_t tiles = static_cast<size_t>((n + 15) / 16);
  const size_t spans = static_cast<size_t>((k + 31) / 32);
  const size_t blocks = spans * 32 / static_cast<size_t>(block_size);

  std::vector<uint8_t> codes(tiles * spans * (wide ? 8 : static_cast<size_t>(bits)) * 64);
  for (uint8_t& byte : codes) {
    byte = static_cast<uint8_t>(NextWord());
    if (wide && byte == 128) byte = 127;  // the one code that no factor uses
  }
  std::vector<int8_t> codebook(size_t{1} << (wide ? 8 : bits));
  for (size_t code = 0; code < codebook.size(); ++code) {
    const int32_t from_0_to_1 = static_cast<int32_t>(code * 2 * static_cast<size_t>(largest) / (codebook.size() - 1));
    const int32_t identity = code == 128 ? -127 : static_cast<int8_t>(code);
    codebook[code] = static_cast<int8_t>(wide ? identity : from_0_to_1 - largest);
  }
  std::vector<int8_t> scales(tiles * blocks * 16);
  for (int8_t& scale : scales) scale = static_cast<int8_t>(NextWord() % 255 - 127);
  const std::vector<uint16_t> tile_book(tiles, 0);
  const std::vector<float> row_scale(tiles * 16, 0.01f);
  std::vector<float> x(static_cast<size_t>(k)), y(static_cast<size_t>(n));
  for (float& value : x) value = static_cast<float>(NextWord() % 2001) * 0.001f - 1.0f;

  const ec_lut_factor factor = {sizeof(factor),
                                bits,
                                n,
                                k,
                                block_size,
                                static_cast<int64_t>(tiles),
                                1,
                                codes.data(),
                                codebook.data(),
                                tile_book.data(),
                                scales.data(),
                                row_scale.data(),
                                nullptr};
  Require(ec_lut_check(&factor, nullptr));
  size_t bytes = 0;
  Require(ec_lut_matmul_workspace_bytes(&factor, 1, nullptr, EC_COMPUTE_INT8, nullptr, &bytes));
  std::vector<uint8_t> workspace(bytes);
  edgecomp::runner::MarkCount();
  for (int32_t i = 0; i < iterations; ++i) {
    Require(ec_lut_matmul(&factor, x.data(), 1, nullptr, y.data(), EC_COMPUTE_INT8, nullptr, workspace.data(), bytes));
  }
  edgecomp::runner::MarkCount();
  const char* variant = nullptr;
  Require(ec_variant_selected(&variant));
  std::printf("%s\n", variant);
  return 0;
}
