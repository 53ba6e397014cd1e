// lut_matmul over random shapes: every variant against weights in float64, and against each other.
#include <cmath>
#include <limits>

#include "check.h"
#include "support.h"

namespace edgecomp::test {
namespace {

constexpr FactorShape kShapes[] = {
    {1, 1, 0, 32},
    {1, 31, 0, 32},
    {15, 33, 0, 64},
    {16, 32, 0, 32},
    {17, 64, 0, 32, 2},
    {31, 101, 0, 32},
    {32, 97, 0, 128},
    {33, 577, 0, 32, 3},
    {7, 1031, 0, 1056},
    {48, 2053, 0, 32, 1, true},
    {13, 640, 0, 320, 2, true},
};
constexpr int64_t kRowCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 131};

std::vector<float> Product(const std::vector<float>& weights, const std::vector<float>& x, int64_t m, const ec_lut_factor& factor,
                           const float* bias) {
  std::vector<float> y(static_cast<size_t>(m * factor.n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t n = 0; n < factor.n; ++n) {
      double sum = bias != nullptr ? bias[n] : 0;
      for (int64_t k = 0; k < factor.k; ++k)
        sum += static_cast<double>(x[static_cast<size_t>(i * factor.k + k)]) * weights[static_cast<size_t>(n * factor.k + k)];
      y[static_cast<size_t>(i * factor.n + n)] = static_cast<float>(sum);
    }
  }
  return y;
}

TEST(EveryVariantOverShapes) {
  Random random(1);
  for (int32_t bits = 1; bits <= 8; ++bits) {
    for (FactorShape shape : kShapes) {
      shape.bits = bits;
      const RandomFactor factor(shape, &random);
      const std::vector<float> weights = Weights(factor.view());
      const std::vector<float> bias = random.Reals(shape.n);
      for (const int64_t m : kRowCounts) {
        const std::vector<float> x = random.Reals(m * shape.k);
        const float* some_bias = m % 2 == 0 ? bias.data() : nullptr;
        const auto exact = Product(weights, x, m, factor.view(), some_bias);
        const auto ref = Multiply(Isa::kRef, factor.view(), x, m, some_bias, EC_COMPUTE_INT8);
        for (const Isa isa : AvailableIsas()) {
          const auto y_float = Multiply(isa, factor.view(), x, m, some_bias, EC_COMPUTE_FLOAT);
          const auto y_int8 = Multiply(isa, factor.view(), x, m, some_bias, EC_COMPUTE_INT8);
          CHECK_MESSAGE(RelativeDifference(y_float, exact) < 2e-5, "%s float: %d bits, %lld x %lld, M=%lld", IsaName(isa), bits,
                        static_cast<long long>(shape.n), static_cast<long long>(shape.k), static_cast<long long>(m));
          CHECK_MESSAGE(RelativeDifference(y_int8, ref) < 2e-6, "%s int8: %d bits, %lld x %lld, M=%lld", IsaName(isa), bits,
                        static_cast<long long>(shape.n), static_cast<long long>(shape.k), static_cast<long long>(m));
        }
      }
    }
  }
}

// With one block no float sum is left to differ: what comes out shows the integer sums.
TEST(IntegerSumsAreEqualInAllVariants) {
  Random random(2);
  for (int32_t bits = 1; bits <= 8; ++bits) {
    const FactorShape shape = {37, 2048, bits, 2048};
    const RandomFactor factor(shape, &random);
    for (const int64_t m : {1, 2, 11, 13, 16, 37}) {  // vector registers take up to 12 rows at once, the matrix unit 16
      const std::vector<float> x = random.Reals(m * shape.k);
      const auto ref = Multiply(Isa::kRef, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
      for (const Isa isa : AvailableIsas()) {
        CHECK_MESSAGE(Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8) == ref, "%s: %d bits, M=%lld", IsaName(isa),
                      bits, static_cast<long long>(m));
      }
    }
  }
}

// The largest sums there are: a saturating or overflowing step would show.
TEST(LargestSums) {
  constexpr int64_t kColumns = 65536;
  Random random(3);
  RandomFactor factor({16, kColumns, 8, kColumns}, &random);
  std::vector<uint8_t> codes(16 * kColumns);
  for (const uint8_t weight : {uint8_t{127}, uint8_t{129} /* -127 */}) {
    std::fill(codes.begin(), codes.end(), weight);
    factor.mutable_view()->codes = codes.data();
    for (const float sign : {1.0f, -1.0f}) {
      for (const int64_t m : {1, 2, 17}) {
        const std::vector<float> x(static_cast<size_t>(m * kColumns), sign * 127.0f);
        const auto ref = Multiply(Isa::kRef, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
        for (const Isa isa : AvailableIsas()) CHECK(Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8) == ref);
      }
    }
  }
}

// Bytes of 128 among codes of 8 bits are never written; they may count as -127 or as -128 (lut.md), whatever the sign of x.
TEST(TheUnusedCodeIsANumber) {
  constexpr int64_t kColumns = 64;
  Random random(12);
  RandomFactor factor({16, kColumns, 8, kColumns}, &random);
  for (const int64_t m : {1, 2, 5, 17}) {
    const std::vector<float> x = random.Reals(m * kColumns);
    const std::vector<uint8_t> lowest(16 * kColumns, 129), unused(16 * kColumns, 128);
    for (const Isa isa : AvailableIsas()) {
      factor.mutable_view()->codes = lowest.data();
      std::vector<float> y127 = Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
      factor.mutable_view()->codes = unused.data();
      const std::vector<float> y = Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
      const bool as127 = RelativeDifference(y, y127) < 1e-6;
      for (float& value : y127) value *= 128.0f / 127.0f;
      CHECK_MESSAGE(as127 || RelativeDifference(y, y127) < 1e-6, "%s, M=%lld", IsaName(isa), static_cast<long long>(m));
    }
  }
}

// Kernels may add up products in 16 bits where the codebook's magnitudes allow it: the largest sums on both sides of each bound.
TEST(NarrowSumsDoNotOverflow) {
  constexpr int64_t kColumns = 256;
  enum class Entries { kRandom, kLargest, kSmallest, kBoth };
  Random random(11);
  for (int32_t bits = 1; bits <= 6; ++bits) {
    for (const int32_t largest : {31, 32, 33, 63, 64, 65, 127}) {
      for (const int64_t block_size : {32, 128, 256}) {
        RandomFactor factor({16, kColumns, bits, block_size, 1, false, largest}, &random);
        for (const Entries entries : {Entries::kRandom, Entries::kLargest, Entries::kSmallest, Entries::kBoth}) {
          for (int i = 0; entries != Entries::kRandom && i < 1 << bits; ++i) {
            const bool negative = entries == Entries::kSmallest || (entries == Entries::kBoth && i % 2 == 0);
            const_cast<int8_t*>(factor.view().codebooks)[i] = static_cast<int8_t>(negative ? -largest : largest);
          }
          for (const int64_t m : {1, 2, 4, 5, 7}) {  // one row, a few, and panels with all rows at once and with rows left
            for (const float sign : {1.0f, -1.0f}) {
              const std::vector<float> x(static_cast<size_t>(m * kColumns), sign);  // activations of 127 or -127 alone
              const auto ref = Multiply(Isa::kRef, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
              for (const Isa isa : AvailableIsas()) {
                const auto y = Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
                CHECK_MESSAGE(block_size == kColumns ? y == ref : RelativeDifference(y, ref) < 2e-6,
                              "%s: %d bits, magnitudes to %d, blocks of %lld, M=%lld", IsaName(isa), bits, largest,
                              static_cast<long long>(block_size), static_cast<long long>(m));
              }
            }
          }
        }
      }
    }
  }
}

TEST(QuantizationIsEqualInAllVariants) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr int64_t kBlock = 96;
  Random random(4);
  for (int trial = 0; trial < 400; ++trial) {
    const int64_t count = random.Between(1, kBlock);
    std::vector<float> x = random.Reals(count);
    const size_t at = static_cast<size_t>(random.Between(0, count - 1));
    switch (trial % 8) {
      case 0:  // ties: absmax 127 leaves the halves as they are
        for (float& value : x) value = static_cast<float>(random.Between(-253, 253)) * 0.5f;
        x[at] = 127.0f;
        break;
      case 1:
        x[at] = kNan;
        break;
      case 2:
        x[at] = random.Between(0, 1) == 0 ? kInfinity : -kInfinity;
        break;
      case 3:
        for (float& value : x) value *= 1e-31f;
        break;
      case 4:
        x[at] = std::numeric_limits<float>::max();
        break;
      case 5:
        x.assign(x.size(), -0.0f);
        break;
      default:
        break;
    }
    Guarded<int8_t> expected(kBlock);
    float expected_step = 0;
    int32_t expected_minus_sum = 0;
    LutMatMulKernelsFor(Isa::kRef).quantize_block(x.data(), count, kBlock, expected.data(), &expected_step, &expected_minus_sum);
    CHECK(std::isnan(expected_step) == (trial % 8 == 1 || trial % 8 == 2));
    for (const Isa isa : AvailableIsas()) {
      Guarded<int8_t> q(kBlock);
      float step = 0;
      int32_t minus_sum = 0;
      LutMatMulKernelsFor(isa).quantize_block(x.data(), count, kBlock, q.data(), &step, &minus_sum);
      CHECK(q.GuardsIntact());
      CHECK_MESSAGE(std::memcmp(q.data(), expected.data(), kBlock) == 0 && std::memcmp(&step, &expected_step, sizeof(step)) == 0 &&
                        minus_sum == expected_minus_sum,
                    "%s, trial %d, %lld values", IsaName(isa), trial, static_cast<long long>(count));
    }
  }
}

TEST(NonFiniteActivationsAreNotHidden) {
  Random random(5);
  const RandomFactor factor({20, 130, 4, 32}, &random);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const int64_t m : {1, 3}) {
      std::vector<float> x = random.Reals(m * 130);
      x[129] = bad;  // in row 0, in the last and padded block
      for (const Isa isa : AvailableIsas()) {
        const auto y = Multiply(isa, factor.view(), x, m, nullptr, EC_COMPUTE_INT8);
        for (size_t i = 0; i < y.size(); ++i) CHECK(std::isnan(y[i]) == (i < 20));
      }
    }
  }
}

TEST(ThreadsChangeNothing) {
  Random random(6);
  for (const FactorShape& shape :
       {FactorShape{331, 512, 4, 32}, FactorShape{16, 4096, 3, 128}, FactorShape{100, 96, 5, 32, 2, true}}) {
    const RandomFactor factor(shape, &random);
    for (const int64_t m : {1, 5, 37, 97, 300}) {
      const std::vector<float> x = random.Reals(m * shape.k);
      for (const ec_compute compute : {EC_COMPUTE_INT8, EC_COMPUTE_FLOAT}) {
        for (const Isa isa : AvailableIsas()) {
          CHECK(Multiply(isa, factor.view(), x, m, nullptr, compute, TwoThreads()) ==
                Multiply(isa, factor.view(), x, m, nullptr, compute));
        }
      }
    }
  }
}

double Activated(ec_activation activation, double z) {
  switch (activation) {
    case EC_ACTIVATION_NONE:
      return z;
    case EC_ACTIVATION_RELU:
      return std::max(z, 0.0);
    case EC_ACTIVATION_SILU:
      return z / (1 + std::exp(-z));
    case EC_ACTIVATION_GELU:
      return 0.5 * z * (1 + std::erf(z / std::sqrt(2.0)));
    case EC_ACTIVATION_GELU_TANH:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (z + 0.044715 * z * z * z)));
    case EC_ACTIVATION_HARD_SWISH:
      return z * std::min(std::max(z + 3, 0.0), 6.0) / 6;
  }
  return 0;
}

constexpr ec_activation kActivations[] = {EC_ACTIVATION_NONE, EC_ACTIVATION_RELU,      EC_ACTIVATION_SILU,
                                          EC_ACTIVATION_GELU, EC_ACTIVATION_GELU_TANH, EC_ACTIVATION_HARD_SWISH};

TEST(ActivationsAreAccurateAndEqualInAllVariants) {
  std::vector<float> z;
  for (int i = -12000; i <= 12000; ++i) z.push_back(static_cast<float>(i) * 0.001f);
  for (const float far : {40.0f, 100.0f, 1e4f, 1e30f}) {
    z.push_back(far);
    z.push_back(-far);
  }
  for (const ec_activation activation : kActivations) {
    std::vector<float> ref(z.size());
    LutMatMulKernelsFor(Isa::kRef).activate(activation, z.data(), nullptr, ref.data(), static_cast<int64_t>(z.size()));
    for (size_t i = 0; i < z.size(); ++i) {
      const double expected = Activated(activation, z[i]);
      CHECK_MESSAGE(std::fabs(ref[i] - expected) <= 1.2e-6 * (1 + std::fabs(expected)), "activation %d of %g: %g, not %g",
                    activation, z[i], ref[i], expected);
    }
    for (const Isa isa : AvailableIsas()) {
      for (const size_t count : {size_t{1}, size_t{15}, size_t{33}, z.size()}) {
        std::vector<float> y(z.begin(), z.begin() + static_cast<std::ptrdiff_t>(count));
        LutMatMulKernelsFor(isa).activate(activation, y.data(), nullptr, y.data(), static_cast<int64_t>(count));
        CHECK_MESSAGE(std::memcmp(y.data(), ref.data(), count * sizeof(float)) == 0, "%s, activation %d, %zu values", IsaName(isa),
                      activation, count);
      }
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
        std::vector<float> y(20, bad);
        LutMatMulKernelsFor(isa).activate(activation, y.data(), nullptr, y.data(), 20);
        for (const float value : y) CHECK(std::isnan(value));
      }
    }
  }
}

// Every combination: bias, addend, activation and gate, at sizes with whole tiles in pairs, with rows left over, and permuted.
TEST(EpiloguesAreWhatTheySay) {
  Random random(13);
  for (const FactorShape& shape :
       {FactorShape{64, 96, 4, 32, 3}, FactorShape{54, 96, 3, 96, 2}, FactorShape{64, 64, 5, 32, 2, true}}) {
    const RandomFactor factor(shape, &random);
    const int64_t n = shape.n, half = shape.n / 2;
    const std::vector<float> bias = random.Reals(n);
    for (const int64_t m : {1, 3, 21}) {
      const std::vector<float> x = random.Reals(m * shape.k), addend = random.Reals(m * n);
      for (int combination = 0; combination < 8; ++combination) {
        const bool gated = (combination & 4) != 0;
        for (const ec_activation activation : kActivations) {
          const ec_epilogue epilogue = {sizeof(epilogue), (combination & 1) != 0 ? bias.data() : nullptr,
                                        (combination & 2) != 0 ? addend.data() : nullptr, activation, gated ? 1 : 0};
          for (const ec_compute compute : {EC_COMPUTE_FLOAT, EC_COMPUTE_INT8}) {
            for (const Isa isa : AvailableIsas()) {
              std::vector<float> z = Multiply(isa, factor.view(), x, m, nullptr, compute);
              for (int64_t i = 0; i < m * n; ++i) {
                if (epilogue.bias != nullptr) z[static_cast<size_t>(i)] += bias[static_cast<size_t>(i % n)];
                if (epilogue.addend != nullptr) z[static_cast<size_t>(i)] += addend[static_cast<size_t>(i)];
              }
              const auto activate = LutMatMulKernelsFor(Isa::kRef).activate;
              std::vector<float> expected(static_cast<size_t>(gated ? m * half : m * n));
              for (int64_t row = 0; row < m; ++row) {
                const float* from = z.data() + row * n;
                activate(activation, from, gated ? from + half : nullptr, expected.data() + row * (gated ? half : n),
                         gated ? half : n);
              }
              for (const ec_parallel* parallel : {static_cast<const ec_parallel*>(nullptr), TwoThreads()}) {
                CHECK_MESSAGE(Multiply(isa, factor.view(), x, m, epilogue, compute, parallel) == expected,
                              "%s: N=%lld, M=%lld, combination %d, activation %d, compute %d", IsaName(isa),
                              static_cast<long long>(n), static_cast<long long>(m), combination, activation, compute);
              }
            }
          }
        }
      }
    }
  }
}

TEST(EpiloguesAreChecked) {
  Random random(14);
  const RandomFactor odd({21, 32, 4, 32}, &random);
  const auto status_of = [&](const ec_epilogue& epilogue) {
    size_t bytes = 0;
    return ec_lut_matmul_workspace_bytes(&odd.view(), 1, &epilogue, EC_COMPUTE_INT8, nullptr, &bytes);
  };
  ec_epilogue epilogue = {sizeof(epilogue), nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  CHECK(status_of(epilogue) == EC_OK);
  epilogue.gated = 1;
  CHECK(status_of(epilogue) == EC_ERR_SHAPE);
  epilogue.gated = 2;
  CHECK(status_of(epilogue) == EC_ERR_ATTRIBUTE);
  epilogue.gated = 0;
  epilogue.activation = static_cast<ec_activation>(EC_ACTIVATION_HARD_SWISH + 1);
  CHECK(status_of(epilogue) == EC_ERR_ATTRIBUTE);
  epilogue = {sizeof(epilogue) - 1, nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  CHECK(status_of(epilogue) == EC_ERR_STRUCT_SIZE);
}

}  // namespace
}  // namespace edgecomp::test
