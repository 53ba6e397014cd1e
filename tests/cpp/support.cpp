#include "support.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "check.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp::test {

std::vector<float> Random::Reals(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = Real();
  return values;
}

void RandomFactor::LimitEntries(int32_t largest) {
  int8_t* entries = codebooks_->data();
  for (int64_t i = 0; i < view_.books << view_.bits; ++i) entries[i] = static_cast<int8_t>(entries[i] % (largest + 1));
}

void RandomFactor::FillEntries(int32_t entry) {
  std::memset(codebooks_->data(), entry, static_cast<size_t>(view_.books << view_.bits));
}

RandomFactor::RandomFactor(const FactorShape& shape, Random* random) {
  const bool wide = shape.bits >= 7;
  const int64_t planes = wide ? 8 : shape.bits;
  const int64_t tiles = (shape.n + 15) / 16 + (shape.permuted ? 1 : 0);
  const int64_t spans = (shape.k + 31) / 32;
  const int64_t blocks = spans * 32 / shape.block_size;
  const int64_t books = wide ? 1 : shape.books;

  std::vector<uint8_t> codes(static_cast<size_t>(tiles * spans * planes * 64));
  for (uint8_t& byte : codes) {
    byte = static_cast<uint8_t>(random->Word());
    if (wide && byte == 128) byte = 127;  // the one code that no factor uses
  }
  std::vector<int8_t> codebooks(static_cast<size_t>(books << planes));
  for (size_t i = 0; i < codebooks.size(); ++i) {
    codebooks[i] = static_cast<int8_t>(!wide      ? random->Between(-shape.largest, shape.largest)
                                       : i == 128 ? -127
                                                  : static_cast<int>(i < 128 ? i : i - 256));
  }
  std::vector<int8_t> scales(static_cast<size_t>(tiles * blocks * 16));
  for (int8_t& scale : scales) scale = static_cast<int8_t>(random->Between(-127, 127));
  std::vector<uint16_t> tile_book(static_cast<size_t>(tiles));
  for (uint16_t& book : tile_book) book = static_cast<uint16_t>(random->Between(0, books - 1));
  codes_ = std::make_unique<Guarded<uint8_t>>(codes);
  codebooks_ = std::make_unique<Guarded<int8_t>>(codebooks);
  scales_ = std::make_unique<Guarded<int8_t>>(scales);
  tile_book_ = std::make_unique<Guarded<uint16_t>>(tile_book);
  row_scale_ = std::make_unique<Guarded<float>>(random->Reals(tiles * 16));
  if (shape.permuted) {
    std::vector<int32_t> rows(static_cast<size_t>(tiles * 16), -1);
    for (int64_t n = 0; n < shape.n; ++n) rows[static_cast<size_t>(n)] = static_cast<int32_t>(n);
    for (size_t i = rows.size() - 1; i > 0; --i) std::swap(rows[i], rows[random->Word() % (i + 1)]);
    row_index_ = std::make_unique<Guarded<int32_t>>(rows);
  }
  view_ = {sizeof(view_),
           shape.bits,
           shape.n,
           shape.k,
           shape.block_size,
           tiles,
           books,
           codes_->data(),
           codebooks_->data(),
           tile_book_->data(),
           scales_->data(),
           row_scale_->data(),
           row_index_ ? row_index_->data() : nullptr};
}

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> isas;
  for (int i = 0; i < static_cast<int>(Isa::kCount); ++i) {
    if (IsaAvailable(static_cast<Isa>(i))) isas.push_back(static_cast<Isa>(i));
  }
  return isas;
}

namespace {

struct Matrix {
  const float* x;
  int64_t k;
};

const float* MatrixRow(const void* self, int64_t m, float*) {
  const auto* matrix = static_cast<const Matrix*>(self);
  return matrix->x + m * matrix->k;
}

}  // namespace

std::vector<float> Multiply(Isa isa, const ec_lut_factor& factor, const std::vector<float>& x, int64_t m, const float* bias,
                            ec_compute compute, const ec_parallel* parallel) {
  const ec_epilogue epilogue = {sizeof(epilogue), bias, nullptr, EC_ACTIVATION_NONE, 0};
  return Multiply(isa, factor, x, m, epilogue, compute, parallel);
}

std::vector<float> Multiply(Isa isa, const ec_lut_factor& factor, const std::vector<float>& x, int64_t m,
                            const ec_epilogue& epilogue, ec_compute compute, const ec_parallel* parallel) {
  LutLayout layout;
  LutMatMulPlan plan;
  CHECK(CheckedLutLayout(&factor, &layout) == EC_OK);
  CHECK(MakeLutMatMulPlan(factor, layout, m, compute, parallel, false, epilogue.gated == 1, &plan) == EC_OK);
  Guarded<float> input(x);
  const int64_t columns = epilogue.gated == 1 ? factor.n / 2 : factor.n;
  Guarded<float> y(m * columns);
  Guarded<uint8_t> workspace(static_cast<int64_t>(plan.workspace_bytes));
  const Matrix matrix = {input.data(), factor.k};
  const auto run = [&](const float* addend, float* to) {
    RunLutMatMul(LutMatMulKernelsFor(isa), plan, factor, {&matrix, MatrixRow, false}, m,
                 {to, columns, 1, epilogue.bias, addend, factor.n, epilogue.activation}, parallel, workspace.data());
  };
  run(epilogue.addend, y.data());
  CHECK(y.GuardsIntact());
  if (epilogue.addend != nullptr && epilogue.gated == 0) {  // y may be the addend
    Guarded<float> sum(std::vector<float>(epilogue.addend, epilogue.addend + m * columns));
    run(sum.data(), sum.data());
    CHECK(sum.GuardsIntact() && std::memcmp(sum.data(), y.data(), static_cast<size_t>(y.bytes())) == 0);
  }
  CHECK(workspace.GuardsIntact());
  return std::vector<float>(y.data(), y.data() + m * columns);
}

std::vector<float> Weights(const ec_lut_factor& factor) {
  std::vector<int64_t> rows(static_cast<size_t>(factor.n));
  for (int64_t n = 0; n < factor.n; ++n) rows[static_cast<size_t>(n)] = n;
  Guarded<float> weights(factor.n * factor.k);
  CHECK(ec_lut_gather(&factor, rows.data(), factor.n, weights.data(), nullptr) == EC_OK);
  CHECK(weights.GuardsIntact());
  return std::vector<float>(weights.data(), weights.data() + factor.n * factor.k);
}

double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return kInfinity;
  double difference = 0;
  double largest = 1e-30;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(b[i])) return kInfinity;
    if (std::isnan(a[i])) continue;
    difference = std::max(difference, std::fabs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::fabs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

const ec_parallel* TwoThreads() {
  static const ec_parallel parallel = {nullptr,
                                       [](void*, void (*fn)(void*, size_t), size_t count, void* arg) {
                                         const auto run = [=](size_t first) {
                                           for (size_t i = first; i < count; i += 2) fn(arg, i);
                                         };
                                         std::thread other(run, 1);
                                         run(0);
                                         other.join();
                                       },
                                       2};
  return &parallel;
}

}  // namespace edgecomp::test
