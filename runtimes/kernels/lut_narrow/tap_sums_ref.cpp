#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {
namespace {

void SumTaps(const TapSums& sums) {
  for (int64_t i = 0; i < sums.length; ++i) sums.out[i] = sums.bias;
  for (int64_t t = 0; t < sums.taps; ++t) {
    const float* in = sums.in + sums.offsets[t];
    for (int64_t i = 0; i < sums.length; ++i) sums.out[i] += sums.weights[t] * in[i];
  }
}

}  // namespace

extern const TapSumsKernels kTapSumsRef;
const TapSumsKernels kTapSumsRef = {SumTaps};

}  // namespace edgecomp
