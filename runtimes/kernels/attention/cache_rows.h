// Rows of a cache of keys and values (`kv_append_*` and `kv_attention_*` of edgecomp/operators.md).
#ifndef EDGECOMP_KERNELS_ATTENTION_CACHE_ROWS_H_
#define EDGECOMP_KERNELS_ATTENTION_CACHE_ROWS_H_

#include <cstdint>
#include <cstring>

#include "core/isa.h"
#include "edgecomp/edgecomp.h"

namespace edgecomp {

constexpr int64_t kLargestHead = 1024;

// What a row of `size` values is kept as: float32, float16, or int8 with a scale behind them.
struct CacheType {
  ec_type element;

  int64_t RowElements(int64_t size) const { return size + (element == EC_TYPE_INT8 ? 2 : 0); }
  int64_t RowBytes(int64_t size) const {
    return RowElements(size) * (element == EC_TYPE_FLOAT32 ? 4 : element == EC_TYPE_FLOAT16 ? 2 : 1);
  }
};

float FloatOfHalf(uint16_t half);
uint16_t HalfOfFloat(float value);  // to the nearest, half to even; too large ones become infinite

// (1 + m / 128) 2^e of a row's last two int8, e and m: a float for any of their values.
inline float ScaleOf(int8_t exponent, int8_t mantissa) {
  // The smallest two powers are no normal floats.
  const uint32_t bits = exponent >= -126 ? static_cast<uint32_t>(exponent + 127) << 23 : 1u << (149 + exponent);
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return (1.0f + static_cast<float>(mantissa) * (1.0f / 128)) * power;
}

// The row of `size` values in int8: the smallest scale of that form with which the largest value is 127 or less, values rounded
// half to even. One that is not finite makes all of the row infinite.
void EncodeInt8(const float* values, int64_t size, int8_t* row);

// Pairs (j, j + half) of `values` turned in place: their first 2 half values.
void Turn(const float* cos, const float* sin, int64_t half, float* values);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_ATTENTION_CACHE_ROWS_H_
