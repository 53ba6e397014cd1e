#include "kernels/attention/cache_rows.h"

#include <cmath>
#include <cstring>

namespace edgecomp {

float FloatOfHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = half & 0x7fffu;
  uint32_t bits;
  if (rest >= 0x7c00u) {
    bits = 0x7f800000u | (rest & 0x3ffu) << 13;
  } else if (rest >= 0x400u) {
    bits = (rest << 13) + ((127u - 15u) << 23);
  } else {  // a denormal of float16 is a multiple of 2^-24
    const float value = static_cast<float>(rest) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &value, sizeof(bits));
  }
  bits |= sign;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint16_t HalfOfFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  bits &= 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u;  // NaN
  } else if (bits >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more
  } else if (bits >= 0x38800000u) {
    half = (bits - ((127u - 15u) << 23) + 0xfffu + (bits >> 13 & 1u)) >> 13;
  } else {  // below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits, rounded half to even
    float small;
    std::memcpy(&small, &bits, sizeof(small));
    small += 0.5f;
    std::memcpy(&half, &small, sizeof(half));
    half -= 0x3f000000u;
  }
  return static_cast<uint16_t>(half | sign);
}

void EncodeInt8(const float* values, int64_t size, int8_t* row) {
  float largest = 0, check = 0;
  for (int64_t i = 0; i < size; ++i) {
    largest = std::fabs(values[i]) > largest ? std::fabs(values[i]) : largest;
    check += values[i] * 0.0f;
  }
  if (check != 0.0f) {  // not finite: 127 times the largest scale is infinite
    std::memset(row, 127, static_cast<size_t>(size) + 1);
    row[size + 1] = 0;
    return;
  }
  constexpr int kLowest = -126;
  int exponent = 0;
  const float wanted = largest / 127;
  const float fraction = 2 * std::frexp(wanted, &exponent);  // in [1, 2), or 0
  --exponent;
  int mantissa = static_cast<int>(std::ceil((fraction - 1) * 128));
  if (mantissa == 128) {
    mantissa = 0;
    ++exponent;
  }
  if (wanted == 0.0f || exponent < kLowest) {  // the smallest scale that is no denormal
    exponent = kLowest;
    mantissa = 0;
  }
  row[size] = static_cast<int8_t>(exponent);
  row[size + 1] = static_cast<int8_t>(mantissa);
  const float inverse = 1 / ScaleOf(row[size], row[size + 1]);
  for (int64_t i = 0; i < size; ++i) {
    const long rounded = std::lrint(values[i] * inverse);
    row[i] = static_cast<int8_t>(rounded > 127 ? 127 : rounded < -127 ? -127 : rounded);
  }
}

void Turn(const float* cos, const float* sin, int64_t half, float* values) {
  for (int64_t j = 0; j < half; ++j) {
    const float first = values[j], second = values[half + j];
    values[j] = first * cos[j] - second * sin[j];
    values[half + j] = second * cos[j] + first * sin[j];
  }
}

}  // namespace edgecomp
