// The format `dense` as C++ reads it, by the vectors that tests/vectors/make_vectors.py writes. No kernel of ours computes with it:
// what is held against the numpy oracle are dtypes, shapes and the widening of every value.
#include <cstring>
#include <fstream>
#include <string>

#include "check.h"
#include "npy.h"

namespace edgecomp::test {
namespace {

const std::string kVectors = EDGECOMP_VECTORS "/dense";

std::vector<float> Widened(const Npy& values) {
  if (values.dtype == "<f4")
    return std::vector<float>(values.As<float>(), values.As<float>() + values.bytes.size() / sizeof(float));
  std::vector<float> widened;
  for (size_t i = 0; i < values.bytes.size() / sizeof(uint16_t); ++i) widened.push_back(WidenFloat16(values.As<uint16_t>()[i]));
  return widened;
}

TEST(DenseGoldenVectors) {
  std::ifstream list(kVectors + "/cases.txt");
  int cases = 0;
  for (std::string name; list >> name; ++cases) {
    Npy values, weights;
    if (!CHECK_MESSAGE(ReadNpy(kVectors + "/" + name + "/values.npy", &values), "%s/values.npy", name.c_str()) ||
        !CHECK_MESSAGE(ReadNpy(kVectors + "/" + name + "/weights.npy", &weights), "%s/weights.npy", name.c_str())) {
      continue;
    }
    CHECK_MESSAGE(values.dtype == (name == "float16" ? "<f2" : "<f4"), "%s: dtype %s", name.c_str(), values.dtype.c_str());
    CHECK_MESSAGE(weights.dtype == "<f4" && values.shape == weights.shape, "%s: shapes", name.c_str());
    const std::vector<float> widened = Widened(values);
    // By bytes, since -0 equals 0.
    CHECK_MESSAGE(widened.size() * sizeof(float) == weights.bytes.size() &&
                      std::memcmp(widened.data(), weights.bytes.data(), weights.bytes.size()) == 0,
                  "%s: weights must be equal to the last bit", name.c_str());
  }
  CHECK_MESSAGE(cases == 2, "%d cases in %s", cases, kVectors.c_str());
}

}  // namespace
}  // namespace edgecomp::test
