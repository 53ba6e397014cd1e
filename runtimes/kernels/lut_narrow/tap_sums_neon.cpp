#include <arm_neon.h>

#include "kernels/lut_narrow/tap_sums_simd.h"

namespace edgecomp {
namespace {

struct Neon {
  using Reg = float32x4_t;
  static constexpr int kLanes = 4;
  static Reg Set(float value) { return vdupq_n_f32(value); }
  static Reg Load(const float* from) { return vld1q_f32(from); }
  static Reg MultiplyAdd(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
  static Reg AtLeast(Reg v, Reg bound) { return vbslq_f32(vcltq_f32(v, bound), bound, v); }
  static Reg EverySecond(Reg a, Reg b) { return vuzp1q_f32(a, b); }
  static void Store(float* to, Reg value) { vst1q_f32(to, value); }
};

}  // namespace

extern const TapSumsKernels kTapSumsNeon;
const TapSumsKernels kTapSumsNeon = {SumTaps<Neon>, CopyEverySecond<Neon>};

}  // namespace edgecomp
