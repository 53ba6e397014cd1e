#include <immintrin.h>

#include "kernels/lut_narrow/tap_sums_simd.h"

namespace edgecomp {
namespace {

struct Avx2 {
  using Reg = __m256;
  static constexpr int kLanes = 8;
  static Reg Set(float value) { return _mm256_set1_ps(value); }
  static Reg Load(const float* from) { return _mm256_loadu_ps(from); }
  static Reg MultiplyAdd(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static void Store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
};

}  // namespace

extern const TapSumsKernels kTapSumsAvx2;
const TapSumsKernels kTapSumsAvx2 = {SumTaps<Avx2>};

}  // namespace edgecomp
