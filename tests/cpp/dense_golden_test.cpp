// The format `dense` as C++ reads it, by the vectors that tests/vectors/make_vectors.py writes. No kernel of ours computes with it:
// what is held against the numpy oracle are dtypes, shapes and the widening of every value.
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "golden.h"

namespace edgecomp::test {
namespace {

const std::string kVectors = EDGECOMP_VECTORS "/dense";

// The value of a float16, given as its bits; C++17 has no such type.
float WidenFloat16(uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  float magnitude = std::ldexp(static_cast<float>(fraction), -24);  // subnormal, or zero
  if (exponent == 0x1f) {
    magnitude = fraction == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
  } else if (exponent != 0) {
    magnitude = std::ldexp(static_cast<float>(0x400 | fraction), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

std::vector<float> Widened(const Array& values) {
  if (values.type->descr == std::string("<f4")) {
    return std::vector<float>(As<float>(values), As<float>(values) + values.data.size() / sizeof(float));
  }
  std::vector<float> widened;
  for (size_t i = 0; i < values.data.size() / sizeof(uint16_t); ++i) widened.push_back(WidenFloat16(As<uint16_t>(values)[i]));
  return widened;
}

TEST(DenseGoldenVectors) {
  std::ifstream list(kVectors + "/cases.txt");
  int cases = 0;
  for (std::string name; list >> name; ++cases) {
    Array values, weights;
    if (!CHECK_MESSAGE(ReadArray(kVectors + "/" + name + "/values.npy", &values), "%s/values.npy", name.c_str()) ||
        !CHECK_MESSAGE(ReadArray(kVectors + "/" + name + "/weights.npy", &weights), "%s/weights.npy", name.c_str())) {
      continue;
    }
    CHECK_MESSAGE(values.type->name == name, "%s: dtype %s", name.c_str(), values.type->name);
    CHECK_MESSAGE(weights.type->name == std::string("float32") && values.shape == weights.shape, "%s: shapes", name.c_str());
    const std::vector<float> widened = Widened(values);
    // By bytes, since -0 equals 0.
    CHECK_MESSAGE(widened.size() * sizeof(float) == weights.data.size() &&
                      std::memcmp(widened.data(), weights.data.data(), weights.data.size()) == 0,
                  "%s: weights must be equal to the last bit", name.c_str());
  }
  CHECK_MESSAGE(cases == 2, "%d cases in %s", cases, kVectors.c_str());
}

}  // namespace
}  // namespace edgecomp::test
