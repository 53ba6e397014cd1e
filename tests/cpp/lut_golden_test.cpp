// The kernels against the numpy oracle, by the vectors that tests/vectors/make_vectors.py writes.
#include <fstream>
#include <map>
#include <string>

#include "check.h"
#include "golden.h"
#include "support.h"

namespace edgecomp::test {
namespace {

const std::string kVectors = EDGECOMP_VECTORS "/lut";

struct GoldenCase {
  std::map<std::string, Array> arrays;
  std::map<std::string, int64_t> meta;
  ec_lut_factor factor;

  std::vector<float> Floats(const std::string& name) {
    const Array& array = arrays[name];
    return std::vector<float>(As<float>(array), As<float>(array) + array.data.size() / sizeof(float));
  }
};

bool Load(const std::string& name, GoldenCase* golden) {
  std::ifstream meta(kVectors + "/" + name + "/meta.txt");
  std::string key;
  for (int64_t value = 0; meta >> key >> value;) golden->meta[key] = value;
  for (const char* array :
       {"codes", "codebooks", "tile_book", "scales", "row_scale", "x", "bias", "weights", "y_int8", "y_float"}) {
    if (!CHECK_MESSAGE(ReadArray(kVectors + "/" + name + "/" + array + ".npy", &golden->arrays[array]), "%s/%s.npy", name.c_str(),
                       array)) {
      return false;
    }
  }
  const bool permuted = ReadArray(kVectors + "/" + name + "/row_index.npy", &golden->arrays["row_index"]);
  auto& arrays = golden->arrays;
  golden->factor = {sizeof(golden->factor),
                    static_cast<int32_t>(golden->meta["bits"]),
                    golden->meta["n"],
                    golden->meta["k"],
                    golden->meta["block_size"],
                    arrays["codes"].shape[0],
                    arrays["codebooks"].shape[0],
                    As<uint8_t>(arrays["codes"]),
                    As<int8_t>(arrays["codebooks"]),
                    As<uint16_t>(arrays["tile_book"]),
                    As<int8_t>(arrays["scales"]),
                    As<float>(arrays["row_scale"]),
                    permuted ? As<int32_t>(arrays["row_index"]) : nullptr};
  return true;
}

TEST(LutGoldenVectors) {
  std::ifstream list(kVectors + "/cases.txt");
  int cases = 0;
  for (std::string name; list >> name; ++cases) {
    GoldenCase golden;
    if (!Load(name, &golden)) continue;
    std::vector<uint8_t> scratch(static_cast<size_t>(golden.factor.n));
    CHECK_MESSAGE(ec_lut_check(&golden.factor, scratch.data()) == EC_OK, "%s", name.c_str());
    ec_lut_bytes bytes;
    CHECK(ec_lut_array_bytes(&golden.factor, &bytes) == EC_OK);
    CHECK_MESSAGE(
        bytes.codes == golden.arrays["codes"].data.size() && bytes.codebooks == golden.arrays["codebooks"].data.size() &&
            bytes.tile_book == golden.arrays["tile_book"].data.size() && bytes.scales == golden.arrays["scales"].data.size() &&
            bytes.row_scale == golden.arrays["row_scale"].data.size() && bytes.row_index == golden.arrays["row_index"].data.size(),
        "%s: array bytes", name.c_str());
    CHECK_MESSAGE(Weights(golden.factor) == golden.Floats("weights"), "%s: weights must be equal to the last bit", name.c_str());
    const std::vector<float> bias = golden.Floats("bias");
    for (const Isa isa : AvailableIsas()) {
      const auto y_int8 = Multiply(isa, golden.factor, golden.Floats("x"), golden.meta["m"], bias.data(), EC_COMPUTE_INT8);
      const auto y_float = Multiply(isa, golden.factor, golden.Floats("x"), golden.meta["m"], bias.data(), EC_COMPUTE_FLOAT);
      CHECK_MESSAGE(RelativeDifference(y_int8, golden.Floats("y_int8")) < 1e-6, "%s on %s: int8", name.c_str(), IsaName(isa));
      CHECK_MESSAGE(RelativeDifference(y_float, golden.Floats("y_float")) < 1e-6, "%s on %s: float", name.c_str(), IsaName(isa));
    }
  }
  CHECK_MESSAGE(cases > 0, "cases in %s", kVectors.c_str());
}

}  // namespace
}  // namespace edgecomp::test
