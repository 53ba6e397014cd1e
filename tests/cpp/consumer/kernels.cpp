// The kernels without a runtime: y = W x of a matrix of 16 rows and 32 columns, every weight of row r being r.
#include <edgecomp/edgecomp.h>

#include <cstdio>
#include <vector>

int main() {
  std::vector<uint8_t> codes(8 * 16 * 4);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i / 4 % 16);
  std::vector<int8_t> table(256);
  for (int code = 0; code < 256; ++code) table[code] = static_cast<int8_t>(code == 128 ? -127 : code < 128 ? code : code - 256);
  const uint16_t tile_book = 0;
  const std::vector<int8_t> scales(16, 1);
  const std::vector<float> row_scale(16, 1.0f), x(32, 1.0f);
  const ec_lut_factor factor = {sizeof(factor),   8,      16, 32, 32, 1, 1, codes.data(), table.data(), &tile_book, scales.data(),
                                row_scale.data(), nullptr};
  size_t bytes = 0;
  if (ec_lut_matmul_workspace_bytes(&factor, 1, nullptr, EC_COMPUTE_FLOAT, nullptr, &bytes) != EC_OK) return 1;
  std::vector<char> workspace(bytes);
  std::vector<float> y(16);
  const ec_status status =
      ec_lut_matmul(&factor, x.data(), 1, nullptr, y.data(), EC_COMPUTE_FLOAT, nullptr, workspace.data(), bytes);
  if (status != EC_OK) {
    std::fprintf(stderr, "%s\n", ec_status_message(status));
    return 1;
  }
  std::printf("%s", ec_version());
  for (const float value : y) std::printf(" %g", value);
  std::printf("\n");
}
