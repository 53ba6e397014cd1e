#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {
namespace {

void SumTaps(const TapSums& sums) {
  for (int64_t o = 0; o < sums.outputs; ++o) {
    float* out = sums.out + o * sums.out_stride;
    for (int64_t i = 0; i < sums.length; ++i) out[i] = sums.bias != nullptr ? sums.bias[o] : 0.0f;
    for (int64_t t = 0; t < sums.taps; ++t) {
      const float* in = sums.in + sums.offsets[t];
      const float weight = sums.weights[o * sums.taps + t];
      for (int64_t i = 0; i < sums.length; ++i) out[i] += weight * in[i];
    }
    for (int64_t i = 0; sums.relu && i < sums.length; ++i) out[i] = out[i] < 0.0f ? 0.0f : out[i];
  }
}

void CopyEverySecond(const float* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[2 * i];
}

}  // namespace

extern const TapSumsKernels kTapSumsRef;
const TapSumsKernels kTapSumsRef = {SumTaps, CopyEverySecond};

}  // namespace edgecomp
