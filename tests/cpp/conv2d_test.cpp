// lut_conv2d against a direct convolution in float64.
#include "check.h"
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
        const double tolerance = compute == EC_COMPUTE_INT8 && c.group == 1 ? 0.02 : 1e-5;
        CHECK_MESSAGE(RelativeDifference(got, expected) < tolerance, "case of %lld outputs, group %lld: %g",
                      static_cast<long long>(test.outputs), static_cast<long long>(c.group), RelativeDifference(got, expected));
        CHECK(ec_lut_conv2d(&factor.view(), &c, x.data(), nullptr, y.data(), compute, parallel, workspace.data(), bytes - 1) ==
              EC_ERR_WORKSPACE);
      }
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
