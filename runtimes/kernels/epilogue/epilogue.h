// What follows a product: the kernels that each instruction set's file compiles to its own vectors. Values go from a tile's sums to
// y in registers.
#ifndef EDGECOMP_KERNELS_EPILOGUE_EPILOGUE_H_
#define EDGECOMP_KERNELS_EPILOGUE_EPILOGUE_H_

#include <type_traits>

#include "kernels/epilogue/activation.h"
#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

// `Tag` as in unroll.h.
template <class Tag>
class Epilogue {
  using V = FloatVector<Tag>;
  using Floats = typename V::Floats;
  static constexpr int kParts = kTileRows / V::kLanes;

 public:
  // LutMatMulKernels::activate.
  static void Activate(ec_activation activation, const float* z, const float* factor, float* y, int64_t count) {
    WithActivation(activation, [&](auto known) EC_LAMBDA_INLINE {
      int64_t i = 0;
      for (; i + V::kLanes <= count; i += V::kLanes) {
        const Floats v = Activation<Tag, known>::Of(V::Load(z + i));
        V::Store(y + i, factor != nullptr ? v * V::Load(factor + i) : v);
      }
      if (i == count) return;
      const auto left_bytes = static_cast<size_t>(count - i) * sizeof(float);
      float values[V::kLanes] = {}, factors[V::kLanes] = {};
      std::memcpy(values, z + i, left_bytes);
      if (factor != nullptr) std::memcpy(factors, factor + i, left_bytes);
      const Floats v = Activation<Tag, known>::Of(V::Load(values));
      V::Store(values, factor != nullptr ? v * V::Load(factors) : v);
      std::memcpy(y + i, values, left_bytes);
    });
  }

  // LutMatMulKernels::store_tile.
  static void StoreTile(ec_activation activation, const TileSums& z, const TileSums* factor, int64_t rows, float* y,
                        int64_t y_stride) {
    WithActivation(activation, [&](auto known) EC_LAMBDA_INLINE {
      if (z.addend == nullptr) {
        return factor != nullptr ? StoreRows<known, false, true>(z, *factor, rows, y, y_stride)
                                 : StoreRows<known, false, false>(z, z, rows, y, y_stride);
      }
      return factor != nullptr ? StoreRows<known, true, true>(z, *factor, rows, y, y_stride)
                               : StoreRows<known, true, false>(z, z, rows, y, y_stride);
    });
  }

 private:
  // Gives z of a tile, row after row. Holds all that it needs itself: what is stored in between might change the caller's.
  template <bool kAddend>
  class Rows {
   public:
    explicit EC_INLINE Rows(const TileSums& tile) : sums_(tile.sums), addend_(tile.addend), addend_stride_(tile.addend_stride) {
      // Adding -0 changes nothing, not even a -0.
      static constexpr float kNoBias[kTileRows] = {-0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f,
                                                   -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f};
      const float* bias = tile.bias != nullptr ? tile.bias : kNoBias;
      Unroll<Tag, kParts>([&](auto part) EC_LAMBDA_INLINE {
        scale_[part] = V::Load(tile.row_scale + part * V::kLanes);
        bias_[part] = V::Load(bias + part * V::kLanes);
      });
    }

    // Loads side by side, which ARM has instructions for.
    EC_INLINE void Next(Floats (&z)[kParts]) {
      for (int part = 0; part < kParts; ++part) z[part] = V::Load(sums_ + part * V::kLanes);
      for (int part = 0; part < kParts; ++part) z[part] = z[part] * scale_[part] + bias_[part];
      sums_ += kTileRows;
      if constexpr (!kAddend) return;
      for (int part = 0; part < kParts; ++part) z[part] = z[part] + V::Load(addend_ + part * V::kLanes);
      addend_ += addend_stride_;
    }

   private:
    const float *sums_, *addend_;
    int64_t addend_stride_;
    Floats scale_[kParts], bias_[kParts];
  };

  template <ec_activation kActivation, bool kAddend, bool kGated>
  static void StoreRows(const TileSums& z, const TileSums& factor, int64_t rows, float* y, int64_t y_stride) {
    Rows<kAddend> row(z), factor_row(factor);
    for (int64_t m = 0; m < rows; ++m, y += y_stride) {
      Floats values[kParts], factors[kParts];
      row.Next(values);
      if constexpr (kGated) factor_row.Next(factors);
      for (int part = 0; part < kParts; ++part) {
        values[part] = Activation<Tag, kActivation>::Of(values[part]);
        if constexpr (kGated) values[part] = values[part] * factors[part];
      }
      for (int part = 0; part < kParts; ++part) V::Store(y + part * V::kLanes, values[part]);
    }
  }

  // Calls body with the activation as a compile-time constant.
  template <class Body>
  static EC_INLINE void WithActivation(ec_activation activation, const Body& body) {
    switch (activation) {
      case EC_ACTIVATION_NONE:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_NONE>{});
      case EC_ACTIVATION_RELU:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_RELU>{});
      case EC_ACTIVATION_SILU:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_SILU>{});
      case EC_ACTIVATION_GELU:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_GELU>{});
      case EC_ACTIVATION_GELU_TANH:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_GELU_TANH>{});
      case EC_ACTIVATION_HARD_SWISH:
        return body(std::integral_constant<ec_activation, EC_ACTIVATION_HARD_SWISH>{});
    }
  }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_EPILOGUE_EPILOGUE_H_
