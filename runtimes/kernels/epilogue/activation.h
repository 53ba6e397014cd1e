// Activations of a product, in plain C++ that each instruction set's file compiles to its own vectors. Only additions,
// multiplications, divisions and comparisons, none contracted: every variant gives the same bits, wherever a row is cut.
#ifndef EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_
#define EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_

#include <cstdint>
#include <cstring>

#include "edgecomp/edgecomp.h"
#include "kernels/lut_matmul/unroll.h"

namespace edgecomp {

// `Tag` as in unroll.h.
template <class Tag>
class Activations {
 public:
  // y[i] = activation(z[i]), times factor[i] where `factor` is not null. y may be z or factor, and overlaps neither otherwise.
  static void Run(ec_activation activation, const float* z, const float* factor, float* y, int64_t count) {
    switch (activation) {
      case EC_ACTIVATION_NONE:
        return ForAll(z, factor, y, count, [](float v) EC_LAMBDA_INLINE { return v; });
      case EC_ACTIVATION_RELU:
        return ForAll(z, factor, y, count, [](float v) EC_LAMBDA_INLINE { return AtLeast(v, 0.0f); });
      case EC_ACTIVATION_SILU:
        return ForAll(z, factor, y, count, [](float v) EC_LAMBDA_INLINE { return v / (1.0f + Exp(-v)); });
      case EC_ACTIVATION_GELU:
        return ForAll(z, factor, y, count, [](float v) EC_LAMBDA_INLINE { return 0.5f * v * (1.0f + Erf(v * 0.70710678118f)); });
      case EC_ACTIVATION_GELU_TANH:  // 1 + tanh(u) = 2 / (1 + exp(-2 u))
        return ForAll(z, factor, y, count,
                      [](float v) EC_LAMBDA_INLINE { return v / (1.0f + Exp(-1.5957691216f * (v + 0.044715f * v * v * v))); });
      case EC_ACTIVATION_HARD_SWISH:
        return ForAll(z, factor, y, count,
                      [](float v) EC_LAMBDA_INLINE { return v * AtMost(AtLeast(v + 3.0f, 0.0f), 6.0f) / 6.0f; });
    }
  }

 private:
  // In pieces that are read before they are written, so that the loop is vectorised whatever y overlaps.
  template <class Function>
  static EC_INLINE void ForAll(const float* z, const float* factor, float* y, int64_t count, const Function& function) {
    constexpr int64_t kPiece = 16;
    int64_t i = 0;
    for (; i + kPiece <= count; i += kPiece) {
      float piece[kPiece];
      for (int64_t j = 0; j < kPiece; ++j) piece[j] = function(z[i + j]);
      if (factor != nullptr) {
        for (int64_t j = 0; j < kPiece; ++j) piece[j] *= factor[i + j];
      }
      std::memcpy(y + i, piece, sizeof(piece));
    }
    for (; i < count; ++i) y[i] = factor != nullptr ? function(z[i]) * factor[i] : function(z[i]);
  }

  // NaN stays: both comparisons are false.
  static EC_INLINE float AtLeast(float v, float least) { return v < least ? least : v; }
  static EC_INLINE float AtMost(float v, float most) { return v > most ? most : v; }

  // Cephes' expf, to about 1e-7 relative; exp(-87) below and exp(88) above. Not for NaN, whose callers divide NaN by it.
  static EC_INLINE float Exp(float v) {
    const float x = AtMost(AtLeast(v, -87.0f), 88.0f);
    constexpr float kRound = 12582912.0f;  // 1.5 * 2**23: adding it leaves the nearest integer in the low bits
    const float shifted = x * 1.44269504089f + kRound;
    const float power = shifted - kRound;
    const float r = x - power * 0.693359375f - power * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float mantissa = p * r * r + r + 1.0f;
    uint32_t bits, exponent;
    std::memcpy(&bits, &mantissa, sizeof(bits));
    std::memcpy(&exponent, &shifted, sizeof(exponent));
    bits += exponent << 23;
    float result;
    std::memcpy(&result, &bits, sizeof(result));
    return result;
  }

  // The rational approximation of XLA's and Eigen's erf, to a few units in the last place.
  static EC_INLINE float Erf(float v) {
    const float x = AtMost(AtLeast(v, -4.0f), 4.0f);
    const float s = x * x;
    float p = -2.72614225801306e-10f;
    p = p * s + 2.77068142495902e-08f;
    p = p * s - 2.10102402082508e-06f;
    p = p * s - 5.69250639462346e-05f;
    p = p * s - 7.34990630326855e-04f;
    p = p * s - 2.95459980854025e-03f;
    p = p * s - 1.60960333262415e-02f;
    float q = -1.45660718464996e-05f;
    q = q * s - 2.13374055278905e-04f;
    q = q * s - 1.68282697438203e-03f;
    q = q * s - 7.37332916720468e-03f;
    q = q * s - 1.42647390514189e-02f;
    return x * p / q;
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_EPILOGUE_ACTIVATION_H_
