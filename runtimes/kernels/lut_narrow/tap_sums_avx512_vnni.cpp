#include <immintrin.h>

#include "kernels/lut_narrow/tap_sums_simd.h"

namespace edgecomp {
namespace {

struct Avx512 {
  using Reg = __m512;
  static constexpr int kLanes = 16;
  static Reg Set(float value) { return _mm512_set1_ps(value); }
  static Reg Load(const float* from) { return _mm512_loadu_ps(from); }
  static Reg MultiplyAdd(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg AtLeast(Reg v, Reg bound) { return _mm512_max_ps(bound, v); }
  static Reg EverySecond(Reg a, Reg b) {
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
  }
  static void Store(float* to, Reg value) { _mm512_storeu_ps(to, value); }
};

}  // namespace

extern const TapSumsKernels kTapSumsAvx512Vnni;
const TapSumsKernels kTapSumsAvx512Vnni = {SumTaps<Avx512>, CopyEverySecond<Avx512>};

}  // namespace edgecomp
