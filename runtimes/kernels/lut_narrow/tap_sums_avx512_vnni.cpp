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
  static void Store(float* to, Reg value) { _mm512_storeu_ps(to, value); }
};

}  // namespace

extern const TapSumsKernels kTapSumsAvx512Vnni;
const TapSumsKernels kTapSumsAvx512Vnni = {SumTaps<Avx512>};

}  // namespace edgecomp
