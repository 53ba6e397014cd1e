// The inner loop of a direct convolution: sums of shifted copies of one array.
#ifndef EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_
#define EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_

#include <cstdint>

#include "core/isa.h"

namespace edgecomp {

// What a kernel may read of `in` and write of `out` past `length`: it works on whole vectors.
constexpr int64_t kTapSlack = 16;

// Outputs of the same input that are worth computing at once.
constexpr int64_t kTapOutputs = 4;

// out[o * out_stride + i] = bias[o] + sum over t < taps of weights[o * taps + t] * in[offsets[t] + i], for o < outputs, i < length;
// with relu 0 where that is less.
struct TapSums {
  const float* in;
  const int64_t* offsets;
  const float* weights;
  int64_t taps;
  const float* bias;  // or null: 0
  bool relu;
  int64_t outputs;  // at most kTapOutputs
  int64_t length;
  float* out;
  int64_t out_stride;  // at least length + kTapSlack
};

struct TapSumsKernels {
  void (*run)(const TapSums& sums);
  // to[i] = from[2 * i] for i < count; reads nothing behind from[2 * count - 2].
  void (*copy_every_second)(const float* from, int64_t count, float* to);
};

const TapSumsKernels& TapSumsKernelsFor(Isa isa);
Isa TapSumsIsaFor(Isa isa);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_
