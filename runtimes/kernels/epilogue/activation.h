// Activations of a vector of values, and the functions that they are made of: the same bits in every variant, whatever values lie
// beside one.
#ifndef EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_
#define EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_

#include "edgecomp/edgecomp.h"
#include "kernels/epilogue/float_vector.h"

namespace edgecomp {

// `Tag` as in unroll.h, here and below.

// The sum of coefficients[i] * x**(count - 1 - i).
template <class Tag, int kCount>
EC_INLINE typename FloatVector<Tag>::Floats Polynomial(typename FloatVector<Tag>::Floats x, const float (&coefficients)[kCount]) {
  using V = FloatVector<Tag>;
  typename V::Floats sum = V::Set(coefficients[0]);
  for (int i = 1; i < kCount; ++i) sum = V::MultiplyAdd(sum, x, V::Set(coefficients[i]));
  return sum;
}

// Cephes' expf, to about 1e-7 relative; exp(-87) below and exp(88) above. Not for NaN.
template <class Tag>
EC_INLINE typename FloatVector<Tag>::Floats Exponential(typename FloatVector<Tag>::Floats v) {
  using V = FloatVector<Tag>;
  using Floats = typename V::Floats;
  const Floats x = V::AtMost(V::AtLeast(v, V::Set(-87.0f)), V::Set(88.0f));
  const Floats round = V::Set(12582912.0f);  // 1.5 * 2**23: adding it leaves the nearest integer in the low bits
  const Floats shifted = V::MultiplyAdd(x, V::Set(1.44269504089f), round);
  const Floats power = shifted - round;
  const Floats r = V::MultiplyAdd(power, V::Set(2.12194440e-4f), V::MultiplyAdd(power, V::Set(-0.693359375f), x));
  const Floats p = Polynomial<Tag>(
      r, {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f});
  return V::TimesPowerOf2(V::MultiplyAdd(p, r * r, r + V::Set(1.0f)), shifted);
}

// `Of` gives NaN of NaN.
template <class Tag, ec_activation kActivation>
class Activation {
  using V = FloatVector<Tag>;
  using Floats = typename V::Floats;

 public:
  static EC_INLINE Floats Of(Floats v) {
    const Floats one = V::Set(1.0f);
    if constexpr (kActivation == EC_ACTIVATION_RELU) return V::AtLeast(v, V::Set(0.0f));
    if constexpr (kActivation == EC_ACTIVATION_SILU) return v / (one + Exponential<Tag>(v * V::Set(-1.0f)));
    if constexpr (kActivation == EC_ACTIVATION_GELU) {
      const Floats half = v * V::Set(0.5f);
      return V::MultiplyAdd(half, Erf(v * V::Set(0.70710678118f)), half);
    }
    if constexpr (kActivation == EC_ACTIVATION_GELU_TANH) {  // 1 + tanh(u) = 2 / (1 + exp(-2 u))
      const Floats minus_2u = v * V::MultiplyAdd(v * v, V::Set(-1.5957691216f * 0.044715f), V::Set(-1.5957691216f));
      return v / (one + Exponential<Tag>(minus_2u));
    }
    if constexpr (kActivation == EC_ACTIVATION_HARD_SWISH) {
      return v * (V::AtMost(V::AtLeast(v + V::Set(3.0f), V::Set(0.0f)), V::Set(6.0f)) * V::Set(1.0f / 6.0f));
    }
    return v;
  }

 private:
  // The rational approximation of XLA's and Eigen's erf, to a few units in the last place.
  static EC_INLINE Floats Erf(Floats v) {
    const Floats x = V::AtMost(V::AtLeast(v, V::Set(-4.0f)), V::Set(4.0f));
    const Floats s = x * x;
    const Floats p =
        Polynomial<Tag>(s, {-2.72614225801306e-10f, 2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f,
                            -7.34990630326855e-04f, -2.95459980854025e-03f, -1.60960333262415e-02f});
    const Floats q = Polynomial<Tag>(s, {-1.45660718464996e-05f, -2.13374055278905e-04f, -1.68282697438203e-03f,
                                         -7.37332916720468e-03f, -1.42647390514189e-02f});
    return x * p / q;
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_
