// Tap sums in registers, for any vector: a sum waits for the latency of its own multiply-adds, so that eight take turns, of one
// output or of several, which share what is loaded of the input. What is left is computed at once, however little.
#ifndef EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_
#define EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_

#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {

// `V` has kLanes, the type Reg, Load, Set, MultiplyAdd (a * b + c), AtLeast (a NaN stays) and Store, on any address of a float, and
// EverySecond, the even lanes of two.
template <class V, int kOutputs, int kVectors>
inline void SumTapsOf(const TapSums& sums, int64_t first) {
  typename V::Reg totals[kOutputs][kVectors];
  for (int o = 0; o < kOutputs; ++o) {
    for (auto& total : totals[o]) total = V::Set(sums.bias != nullptr ? sums.bias[o] : 0.0f);
  }
  for (int64_t t = 0; t < sums.taps; ++t) {
    const float* in = sums.in + sums.offsets[t] + first;
    typename V::Reg weights[kOutputs];
    for (int o = 0; o < kOutputs; ++o) weights[o] = V::Set(sums.weights[o * sums.taps + t]);
    for (int v = 0; v < kVectors; ++v) {
      const typename V::Reg values = V::Load(in + v * V::kLanes);
      for (int o = 0; o < kOutputs; ++o) totals[o][v] = V::MultiplyAdd(weights[o], values, totals[o][v]);
    }
  }
  if (sums.relu) {
    for (auto& output : totals) {
      for (auto& total : output) total = V::AtLeast(total, V::Set(0.0f));
    }
  }
  for (int o = 0; o < kOutputs; ++o) {
    for (int v = 0; v < kVectors; ++v) V::Store(sums.out + o * sums.out_stride + first + v * V::kLanes, totals[o][v]);
  }
}

template <class V, int kOutputs, int kVectors>
inline void SumTapsLast(const TapSums& sums, int64_t first, int64_t vectors) {
  if (vectors == kVectors) return SumTapsOf<V, kOutputs, kVectors>(sums, first);
  if constexpr (kVectors > 1) SumTapsLast<V, kOutputs, kVectors - 1>(sums, first, vectors);
}

template <class V, int kOutputs>
void SumTapsOfOutputs(const TapSums& sums) {
  constexpr int kVectors = kOutputs == 1 ? 8 : kOutputs == 2 ? 4 : 2;
  int64_t i = 0;
  for (; i + kVectors * V::kLanes <= sums.length; i += kVectors * V::kLanes) SumTapsOf<V, kOutputs, kVectors>(sums, i);
  if (i < sums.length) SumTapsLast<V, kOutputs, kVectors>(sums, i, (sums.length - i + V::kLanes - 1) / V::kLanes);
}

template <class V>
void SumTaps(const TapSums& sums) {
  static_assert(V::kLanes <= kTapSlack && kTapOutputs == 4, "one case a number of outputs");
  switch (sums.outputs) {
    case 1:
      return SumTapsOfOutputs<V, 1>(sums);
    case 2:
      return SumTapsOfOutputs<V, 2>(sums);
    case 3:
      return SumTapsOfOutputs<V, 3>(sums);
    default:
      return SumTapsOfOutputs<V, 4>(sums);
  }
}

template <class V>
void CopyEverySecond(const float* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + V::kLanes < count; i += V::kLanes) {  // leaves one at least: the second vector ends behind the last one's value
    V::Store(to + i, V::EverySecond(V::Load(from + 2 * i), V::Load(from + 2 * i + V::kLanes)));
  }
  for (; i < count; ++i) to[i] = from[2 * i];
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_NARROW_TAP_SUMS_SIMD_H_
