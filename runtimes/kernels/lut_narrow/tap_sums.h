// The inner loop of a direct convolution: sums of shifted copies of one array.
#ifndef EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_
#define EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_

#include <cstdint>

#include "core/isa.h"

namespace edgecomp {

// What a kernel may read of `in` and write of `out` past `length`: it works on whole vectors.
constexpr int64_t kTapSlack = 16;

// out[i] = bias + sum over t < taps of weights[t] * in[offsets[t] + i], for i < length.
struct TapSums {
  const float* in;
  const int64_t* offsets;
  const float* weights;
  int64_t taps;
  float bias;
  int64_t length;
  float* out;
};

struct TapSumsKernels {
  void (*run)(const TapSums& sums);
};

const TapSumsKernels& TapSumsKernelsFor(Isa isa);
Isa TapSumsIsaFor(Isa isa);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_H_
