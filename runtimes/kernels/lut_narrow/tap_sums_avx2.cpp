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
  static Reg AtLeast(Reg v, Reg bound) { return _mm256_max_ps(bound, v); }
  static Reg EverySecond(Reg a, Reg b) {
    const __m256 halves = _mm256_shuffle_ps(a, b, 0x88);  // two of a, two of b, then the others
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xd8));
  }
  static void Store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
};

}  // namespace

extern const TapSumsKernels kTapSumsAvx2;
const TapSumsKernels kTapSumsAvx2 = {SumTaps<Avx2>, CopyEverySecond<Avx2>};

}  // namespace edgecomp
