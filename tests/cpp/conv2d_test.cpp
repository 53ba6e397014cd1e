// lut_conv2d against a direct convolution in float64.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.h"
#include "kernels/lut_conv2d/lut_conv2d.h"
#include "support.h"

namespace edgecomp::test {
namespace {

struct ConvCase {
  ec_conv2d conv;
  int64_t outputs;
  int64_t block_size;
  bool permuted;
};

// batch, channels, height, width; kernel, stride, dilation; pads; group
constexpr ConvCase kCases[] = {
    {{sizeof(ec_conv2d), 2, 3, 7, 9, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 20, 32, false},
    {{sizeof(ec_conv2d), 1, 40, 6, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, 17, 64, false},
    {{sizeof(ec_conv2d), 1, 33, 13, 14, 3, 2, 2, 3, 1, 2, 2, 0, 1, 3, 1}, 16, 32, true},
    {{sizeof(ec_conv2d), 3, 5, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, 3, 32, false},
    {{sizeof(ec_conv2d), 2, 6, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6}, 6, 32, false},
    {{sizeof(ec_conv2d), 1, 6, 9, 7, 3, 3, 2, 3, 2, 1, 2, 1, 0, 1, 3}, 12, 96, true},
    {{sizeof(ec_conv2d), 1, 2, 3, 3, 5, 5, 1, 1, 1, 1, 3, 3, 3, 3, 2}, 4, 32, false},
    // an image of one row; more pixels than are worked on at once, stored in place and not
    {{sizeof(ec_conv2d), 1, 35, 1, 250, 1, 3, 1, 1, 1, 2, 0, 0, 0, 0, 1}, 24, 96, false},
    {{sizeof(ec_conv2d), 2, 32, 16, 16, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, 32, 32, false},
    {{sizeof(ec_conv2d), 1, 10, 1, 100, 1, 10, 1, 5, 1, 1, 0, 3, 0, 4, 1}, 16, 64, false},
    // taps that see padding alone: dilation above the image, strides above the kernel, padding that is all there is
    {{sizeof(ec_conv2d), 1, 40, 5, 4, 3, 3, 1, 1, 9, 7, 9, 7, 9, 7, 1}, 18, 64, false},
    {{sizeof(ec_conv2d), 1, 33, 11, 9, 2, 2, 4, 5, 1, 1, 0, 1, 2, 0, 1}, 5, 256, false},
    {{sizeof(ec_conv2d), 1, 4, 1, 1, 2, 2, 3, 3, 1, 1, 5, 5, 4, 4, 1}, 3, 128, false},
    // groups that do not fill tiles of rows, in order and not
    {{sizeof(ec_conv2d), 1, 15, 6, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 5}, 35, 32, false},
    {{sizeof(ec_conv2d), 2, 66, 5, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 2}, 20, 64, true},
};

std::vector<float> Reference(const ConvCase& test, const std::vector<float>& weights, const std::vector<float>& x,
                             const float* bias, int64_t out_height, int64_t out_width) {
  const ec_conv2d& c = test.conv;
  const int64_t channels = c.in_channels / c.group, padded = (channels + 31) / 32 * 32;
  std::vector<float> y;
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t n = 0; n < test.outputs; ++n) {
      for (int64_t pixel = 0; pixel < out_height * out_width; ++pixel) {
        double sum = bias[n];
        for (int64_t tap = 0; tap < c.kernel_h * c.kernel_w; ++tap) {
          const int64_t row = pixel / out_width * c.stride_h - c.pad_top + tap / c.kernel_w * c.dilation_h;
          const int64_t column = pixel % out_width * c.stride_w - c.pad_left + tap % c.kernel_w * c.dilation_w;
          if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
          for (int64_t i = 0; i < channels; ++i) {
            const int64_t channel = n / (test.outputs / c.group) * channels + i;
            const float value = x[static_cast<size_t>(((b * c.in_channels + channel) * c.height + row) * c.width + column)];
            const int64_t k = tap * padded + i;
            sum += static_cast<double>(value) * weights[static_cast<size_t>(n * c.kernel_h * c.kernel_w * padded + k)];
          }
        }
        y.push_back(static_cast<float>(sum));
      }
    }
  }
  return y;
}

TEST(ConvolutionsMatchADirectSum) {
  Random random(9);
  for (const ConvCase& test : kCases) {
    const ec_conv2d& c = test.conv;
    const int64_t k = c.kernel_h * c.kernel_w * ((c.in_channels / c.group + 31) / 32 * 32);
    const RandomFactor factor({test.outputs, k, 3, test.block_size, 2, test.permuted}, &random);
    int64_t height = 0, width = 0;
    CHECK(ec_conv2d_output_size(&c, &height, &width) == EC_OK);
    const std::vector<float> x = random.Reals(c.batch * c.in_channels * c.height * c.width), bias = random.Reals(test.outputs);
    const auto expected = Reference(test, Weights(factor.view()), x, bias.data(), height, width);
    for (const ec_compute compute : {EC_COMPUTE_FLOAT, EC_COMPUTE_INT8}) {
      for (const ec_parallel* parallel : {static_cast<const ec_parallel*>(nullptr), TwoThreads()}) {
        size_t bytes = 0;
        CHECK(ec_lut_conv2d_workspace_bytes(&factor.view(), &c, compute, parallel, &bytes) == EC_OK);
        Guarded<uint8_t> workspace(static_cast<int64_t>(bytes));
        Guarded<float> y(static_cast<int64_t>(expected.size()));
        const ec_epilogue epilogue = {sizeof(epilogue), bias.data(), nullptr, EC_ACTIVATION_NONE, 0};
        CHECK(ec_lut_conv2d(&factor.view(), &c, x.data(), &epilogue, y.data(), compute, parallel, workspace.data(), bytes) ==
              EC_OK);
        CHECK(y.GuardsIntact() && workspace.GuardsIntact());
        const std::vector<float> got(y.data(), y.data() + expected.size());
        const double tolerance = compute == EC_COMPUTE_INT8 ? 0.02 : 1e-5;
        CHECK_MESSAGE(RelativeDifference(got, expected) < tolerance, "case of %lld outputs, group %lld: %g",
                      static_cast<long long>(test.outputs), static_cast<long long>(c.group), RelativeDifference(got, expected));
        CHECK(ec_lut_conv2d(&factor.view(), &c, x.data(), nullptr, y.data(), compute, parallel, workspace.data(), bytes - 1) ==
              EC_ERR_WORKSPACE);
      }
    }
  }
}

// In float64 over the weights, with images on the grid of lut.md.
std::vector<float> OnGrid(const std::vector<float>& x, int64_t images) {
  std::vector<float> values;
  const size_t size = x.size() / static_cast<size_t>(images);
  for (size_t first = 0; first < x.size(); first += size) {
    float least = 0.0f, most = 0.0f;
    for (size_t i = first; i < first + size; ++i) {
      least = std::min(least, x[i]);
      most = std::max(most, x[i]);
    }
    const float inverse = 255.0f / (most - least), step = (most - least) / 255.0f, zero = std::rint(-least * inverse);
    for (size_t i = first; i < first + size; ++i) {
      values.push_back((std::min(255.0f, std::rint(x[i] * inverse) + zero) - zero) * step);
    }
  }
  return values;
}

std::vector<float> RunInt8(const ConvCase& test, const RandomFactor& factor, const std::vector<float>& x,
                           const ec_epilogue& epilogue, const PixelProductsKernels& kernels, const LutMatMulKernels& activations) {
  Conv2dPlan plan;
  CHECK(PlanConv2d(&factor.view(), &test.conv, &epilogue, EC_COMPUTE_INT8, nullptr, &plan) == EC_OK);
  Guarded<uint8_t> workspace(static_cast<int64_t>(plan.workspace_bytes));
  Guarded<float> y(test.conv.batch * test.outputs * plan.geometry.out_pixels());
  const LutTiles tiles = {&factor.view(), &plan.layout, &activations};
  RunInt8Conv2d(TilesOf(tiles, plan.geometry), plan.geometry, plan.int8, kernels, activations, x.data(), epilogue, y.data(),
                nullptr, workspace.data());
  CHECK(y.GuardsIntact() && workspace.GuardsIntact());
  return std::vector<float>(y.data(), y.data() + y.bytes() / sizeof(float));
}

// Within the rounding of sums of what the grid gives, and the same bits from every instruction set and whatever kernels weights
// take.
TEST(Int8ConvolutionsAreThoseOfTheGridInAllVariants) {
  Random random(19);
  for (const ConvCase& test : kCases) {
    const ec_conv2d& c = test.conv;
    const int64_t k = c.kernel_h * c.kernel_w * ((c.in_channels / c.group + 31) / 32 * 32);
    const std::vector<float> x = random.Reals(c.batch * c.in_channels * c.height * c.width), bias = random.Reals(test.outputs);
    for (const int32_t largest : {127, 63, 31}) {
      RandomFactor factor({test.outputs, k, 4, test.block_size, 2, test.permuted}, &random);
      factor.LimitEntries(largest);
      int64_t height = 0, width = 0;
      CHECK(ec_conv2d_output_size(&c, &height, &width) == EC_OK);
      const auto sums = Reference(test, Weights(factor.view()), OnGrid(x, c.batch), bias.data(), height, width);
      for (const ec_activation activation : {EC_ACTIVATION_NONE, EC_ACTIVATION_RELU}) {
        const ec_epilogue epilogue = {sizeof(epilogue), bias.data(), nullptr, activation, 0};
        std::vector<float> expected = sums;
        for (float& value : expected) value = activation == EC_ACTIVATION_RELU ? std::max(value, 0.0f) : value;
        const LutMatMulKernels& activations = LutMatMulKernelsFor(Isa::kRef);
        const auto portable = RunInt8(test, factor, x, epilogue, PixelProductsFor(Isa::kRef), activations);
        CHECK_MESSAGE(RelativeDifference(portable, expected) < 1e-5, "%lld outputs: %g", static_cast<long long>(test.outputs),
                      RelativeDifference(portable, expected));
        for (const Isa isa : AvailableIsas()) {
          const auto got = RunInt8(test, factor, x, epilogue, PixelProductsFor(isa), LutMatMulKernelsFor(isa));
          CHECK_MESSAGE(std::memcmp(got.data(), portable.data(), got.size() * sizeof(float)) == 0,
                        "%s, %lld outputs, entries within %d", IsaName(isa), static_cast<long long>(test.outputs), largest);
        }
      }
    }
  }
}

// The largest sums that 16 bits see: all pixels at the grid's end, all weights the largest.
TEST(LargestInt8SumsOfConvolutionsDoNotSaturate) {
  Random random(20);
  const ConvCase test = {{sizeof(ec_conv2d), 1, 64, 1, 20, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, 16, 64, false};
  const std::vector<float> x(64 * 20, 1.0f);
  const ec_epilogue epilogue = {sizeof(epilogue), nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  for (const int32_t largest : {127, 63, 31}) {
    RandomFactor factor({16, 64, 8, 64, 1, false}, &random);
    RandomFactor narrow({16, 64, 4, 64, 1, false}, &random);
    narrow.FillEntries(largest);
    const RandomFactor& used = largest == 127 ? factor : narrow;
    const auto portable = RunInt8(test, used, x, epilogue, PixelProductsFor(Isa::kRef), LutMatMulKernelsFor(Isa::kRef));
    for (const Isa isa : AvailableIsas()) {
      CHECK_MESSAGE(RunInt8(test, used, x, epilogue, PixelProductsFor(isa), LutMatMulKernelsFor(isa)) == portable, "%s, %d",
                    IsaName(isa), largest);
    }
  }
}

TEST(NonFinitePixelsAreNotHidden) {
  Random random(21);
  const ConvCase test = {{sizeof(ec_conv2d), 2, 8, 4, 40, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 16, 32, false};
  const RandomFactor factor({16, 9 * 32, 4, 32, 1, false}, &random);
  for (const float bad : {NAN, INFINITY, -INFINITY, 3e38f}) {
    std::vector<float> x = random.Reals(2 * 8 * 4 * 40);
    x[500] = bad;
    if (bad == 3e38f) x[501] = -3e38f;  // finite, but no float32 says how far apart they are
    const ec_epilogue epilogue = {sizeof(epilogue), nullptr, nullptr, EC_ACTIVATION_RELU, 0};
    for (const Isa isa : AvailableIsas()) {
      const auto y = RunInt8(test, factor, x, epilogue, PixelProductsFor(isa), LutMatMulKernelsFor(isa));
      size_t nans = 0;
      for (const float value : y) nans += std::isnan(value);
      CHECK_MESSAGE(nans == y.size() / 2, "%s, %g: %zu of %zu", IsaName(isa), static_cast<double>(bad), nans, y.size());
    }
  }
}

TEST(BadGeometryIsRefused) {
  Random random(10);
  const RandomFactor factor({8, 9 * 32, 4, 32}, &random);
  const ec_conv2d good = {sizeof(good), 1, 4, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 1};
  size_t bytes = 0;
  const auto status_of = [&](void (*spoil)(ec_conv2d*)) {
    ec_conv2d conv = good;
    spoil(&conv);
    return ec_lut_conv2d_workspace_bytes(&factor.view(), &conv, EC_COMPUTE_FLOAT, nullptr, &bytes);
  };
  CHECK(ec_lut_conv2d_workspace_bytes(&factor.view(), &good, EC_COMPUTE_FLOAT, nullptr, &bytes) == EC_OK);
  CHECK(status_of([](ec_conv2d* c) { c->stride_h = 0; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_conv2d* c) { c->pad_left = -1; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_conv2d* c) { c->height = 2; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_conv2d* c) { c->kernel_w = 2; }) == EC_ERR_SHAPE);      // K of another kernel
  CHECK(status_of([](ec_conv2d* c) { c->in_channels = 33; }) == EC_ERR_SHAPE);  // K of fewer channels
  CHECK(status_of([](ec_conv2d* c) { c->group = 3; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_conv2d* c) { c->batch = c->height = c->width = INT32_MAX; }) == EC_ERR_OVERFLOW);
}

}  // namespace
}  // namespace edgecomp::test
