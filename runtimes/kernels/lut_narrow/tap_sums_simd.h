// Tap sums in registers, for any vector: four vectors of outputs at a time, so that a weight is broadcast once for them.
#ifndef EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_
#define EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_

#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {

// `V` has kLanes, the type Reg, and Load, Set, MultiplyAdd (a * b + c) and Store, on any address of a float.
template <class V, int kVectors>
inline void SumTapsOf(const TapSums& sums, int64_t first) {
  typename V::Reg totals[kVectors];
  for (auto& total : totals) total = V::Set(sums.bias);
  for (int64_t t = 0; t < sums.taps; ++t) {
    const float* in = sums.in + sums.offsets[t] + first;
    const typename V::Reg weight = V::Set(sums.weights[t]);
    for (int v = 0; v < kVectors; ++v) totals[v] = V::MultiplyAdd(weight, V::Load(in + v * V::kLanes), totals[v]);
  }
  for (int v = 0; v < kVectors; ++v) V::Store(sums.out + first + v * V::kLanes, totals[v]);
}

template <class V>
void SumTaps(const TapSums& sums) {
  static_assert(V::kLanes <= kTapSlack);
  int64_t i = 0;
  for (; i + 4 * V::kLanes <= sums.length; i += 4 * V::kLanes) SumTapsOf<V, 4>(sums, i);
  for (; i < sums.length; i += V::kLanes) SumTapsOf<V, 1>(sums, i);
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_
