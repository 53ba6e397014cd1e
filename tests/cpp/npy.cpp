#include "npy.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

namespace edgecomp::test {
namespace {

// The text of a header's entry from after its key to `end`.
std::string Entry(const std::string& header, const std::string& key, char begin, char end) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) return "";
  const size_t first = header.find(begin, at + key.size() + 3);
  const size_t last = header.find(end, first + 1);
  return first == std::string::npos || last == std::string::npos ? "" : header.substr(first + 1, last - first - 1);
}

}  // namespace

bool ReadNpy(const std::string& path, Npy* npy) {
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr size_t kPreamble = 10;
  if (content.size() < kPreamble || std::memcmp(content.data(), "\x93NUMPY\x01\x00", 8) != 0) return false;
  const size_t length = static_cast<uint8_t>(content[8]) | static_cast<size_t>(static_cast<uint8_t>(content[9])) << 8;
  const std::string header = content.substr(kPreamble, length);
  if (header.find("'fortran_order': False") == std::string::npos) return false;
  npy->dtype = Entry(header, "descr", '\'', '\'');
  npy->shape.clear();
  const std::string shape = Entry(header, "shape", '(', ')');
  for (const char* at = shape.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long long size = std::strtoll(at, &end, 10);
    if (end == at) break;
    npy->shape.push_back(size);
    at = *end == ',' ? end + 1 : end;
  }
  npy->bytes.assign(content.begin() + static_cast<std::ptrdiff_t>(kPreamble + length), content.end());
  return !npy->dtype.empty();
}

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

}  // namespace edgecomp::test
