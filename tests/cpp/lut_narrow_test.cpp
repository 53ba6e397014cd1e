// lut_narrow_conv2d against the vectors that tests/vectors/make_vectors.py writes, and against a direct convolution in float64.
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <string>

#include "check.h"
#include "golden.h"
#include "kernels/lut_narrow/tap_sums.h"
#include "support.h"

namespace edgecomp::test {
namespace {

const std::string kVectors = EDGECOMP_VECTORS "/lut_narrow";

// Runs a convolution and checks the guards around its output and workspace.
std::vector<float> Convolve(const ec_lut_narrow_factor& factor, const ec_conv2d& conv, const std::vector<float>& x,
                            const float* bias, const ec_parallel* parallel, ec_compute compute = EC_COMPUTE_FLOAT) {
  const ec_epilogue epilogue = {sizeof(epilogue), bias, nullptr, EC_ACTIVATION_NONE, 0};
  int64_t height = 0, width = 0;
  size_t bytes = 0;
  CHECK(ec_conv2d_output_size(&conv, &height, &width) == EC_OK);
  if (!CHECK(ec_lut_narrow_conv2d_workspace_bytes(&factor, &conv, compute, parallel, &bytes) == EC_OK)) return {};
  Guarded<uint8_t> workspace(static_cast<int64_t>(bytes));
  Guarded<float> y(conv.batch * factor.n * height * width), input(x);
  CHECK(ec_lut_narrow_conv2d(&factor, &conv, input.data(), &epilogue, y.data(), compute, parallel, workspace.data(), bytes) ==
        EC_OK);
  CHECK(y.GuardsIntact() && workspace.GuardsIntact());
  CHECK(ec_lut_narrow_conv2d(&factor, &conv, input.data(), &epilogue, y.data(), compute, parallel, workspace.data(), bytes - 1) ==
        EC_ERR_WORKSPACE);
  return std::vector<float>(y.data(), y.data() + y.bytes() / sizeof(float));
}

// The weights [N, K]: what a 1 x 1 convolution makes of images that are the unit vectors.
std::vector<float> WeightsOf(const ec_lut_narrow_factor& factor) {
  const int64_t n = factor.n, k = factor.k;
  std::vector<float> units(static_cast<size_t>(k * k)), weights(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < k; ++i) units[static_cast<size_t>(i * k + i)] = 1.0f;
  const std::vector<float> columns =
      Convolve(factor, {sizeof(ec_conv2d), k, k, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, units, nullptr, nullptr);
  for (int64_t i = 0; i < n * k; ++i) weights[static_cast<size_t>(i)] = columns[static_cast<size_t>(i % k * n + i / k)];
  return weights;
}

TEST(LutNarrowGoldenVectors) {
  std::ifstream list(kVectors + "/cases.txt");
  int cases = 0;
  for (std::string name; list >> name; ++cases) {
    const std::string folder = kVectors + "/" + name;
    std::map<std::string, int64_t> meta;
    std::ifstream meta_file(folder + "/meta.txt");
    std::string key;
    for (int64_t value = 0; meta_file >> key >> value;) meta[key] = value;
    Array codes, codebook, row_scale, weights;
    if (!CHECK_MESSAGE(ReadArray(folder + "/codes.npy", &codes) && ReadArray(folder + "/row_scale.npy", &row_scale) &&
                           ReadArray(folder + "/weights.npy", &weights),
                       "%s", folder.c_str())) {
      continue;
    }
    const bool has_codebook = ReadArray(folder + "/codebook.npy", &codebook);
    const Guarded<uint8_t> guarded(std::vector<uint8_t>(codes.data.begin(), codes.data.end()));
    const ec_lut_narrow_factor factor = {sizeof(factor),
                                         static_cast<int32_t>(meta["bits"]),
                                         meta["n"],
                                         meta["k"],
                                         meta["exponent"],
                                         const_cast<Guarded<uint8_t>&>(guarded).data(),
                                         has_codebook ? As<int8_t>(codebook) : nullptr,
                                         As<uint8_t>(row_scale)};
    CHECK_MESSAGE(has_codebook == (meta["bits"] < 7), "%s", name.c_str());
    CHECK_MESSAGE(ec_lut_narrow_check(&factor) == EC_OK, "%s", name.c_str());
    const std::vector<float> expected(As<float>(weights), As<float>(weights) + weights.data.size() / sizeof(float));
    CHECK_MESSAGE(WeightsOf(factor) == expected, "%s: weights must be equal to the last bit", name.c_str());
  }
  CHECK_MESSAGE(cases > 0, "cases in %s", kVectors.c_str());
}

// A random factor that owns its arrays.
struct RandomNarrow {
  RandomNarrow(int64_t n, int64_t k, int32_t bits, Random* random)
      : codes((n * k * (bits >= 7 ? 8 : bits) + 7) / 8), codebook(int64_t{1} << bits), row_scale(n) {
    for (size_t i = 0; i < codes.bytes(); ++i) codes.data()[i] = static_cast<uint8_t>(random->Between(0, 255));
    for (size_t i = 0; i < codebook.bytes(); ++i) codebook.data()[i] = static_cast<int8_t>(random->Between(-127, 127));
    for (size_t i = 0; i < row_scale.bytes(); ++i) row_scale.data()[i] = static_cast<uint8_t>(random->Between(200, 255));
    view = {sizeof(view), bits, n, k, -22, codes.data(), bits >= 7 ? nullptr : codebook.data(), row_scale.data()};
  }
  Guarded<uint8_t> codes;
  Guarded<int8_t> codebook;
  Guarded<uint8_t> row_scale;
  ec_lut_narrow_factor view;
};

struct ConvCase {
  ec_conv2d conv;
  int64_t outputs;
  int32_t bits;
};

// batch, channels, height, width; kernel, stride, dilation; pads; group
constexpr size_t kSize = sizeof(ec_conv2d);
constexpr ConvCase kCases[] = {
    {{kSize, 2, 6, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6}, 6, 4},       // depthwise
    {{kSize, 1, 20, 14, 14, 5, 5, 2, 2, 1, 1, 2, 2, 2, 2, 20}, 20, 3},  // of MobileNetV3
    {{kSize, 2, 3, 33, 31, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1}, 16, 8},    // a first convolution
    {{kSize, 1, 1, 300, 290, 7, 7, 2, 2, 1, 1, 3, 3, 3, 3, 1}, 5, 5},   // several bands
    {{kSize, 1, 6, 9, 7, 3, 3, 2, 3, 2, 1, 2, 1, 0, 1, 3}, 12, 2},      // lopsided, two outputs a channel
    {{kSize, 1, 2, 3, 3, 5, 5, 1, 1, 1, 1, 3, 3, 3, 3, 2}, 4, 6},       // a kernel larger than the image
    {{kSize, 1, 4, 13, 14, 3, 2, 2, 3, 3, 4, 2, 0, 1, 3, 2}, 6, 7},     // strides and dilations of different phases
    {{kSize, 1, 2, 7, 5, 1, 1, 3, 3, 1, 1, 0, 0, 0, 0, 2}, 2, 1},       // strides beyond the kernel
    {{kSize, 1, 2, 4, 4, 1, 3, 1, 1, 1, 1, 9, 8, 9, 8, 1}, 3, 4},       // paddings wider than the image
    {{kSize, 3, 70, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1}, 2, 4},      // a matrix
};

double Reference(const ConvCase& test, const std::vector<float>& weights, const std::vector<float>& x, int64_t image, int64_t n,
                 int64_t y, int64_t column) {
  const ec_conv2d& c = test.conv;
  const int64_t channels = c.in_channels / c.group;
  double sum = 0;
  for (int64_t tap = 0; tap < c.kernel_h * c.kernel_w; ++tap) {
    const int64_t in_y = y * c.stride_h - c.pad_top + tap / c.kernel_w * c.dilation_h;
    const int64_t in_x = column * c.stride_w - c.pad_left + tap % c.kernel_w * c.dilation_w;
    if (in_y < 0 || in_y >= c.height || in_x < 0 || in_x >= c.width) continue;
    for (int64_t i = 0; i < channels; ++i) {
      const int64_t channel = n / (test.outputs / c.group) * channels + i;
      const float value = x[static_cast<size_t>(((image * c.in_channels + channel) * c.height + in_y) * c.width + in_x)];
      sum += static_cast<double>(value) *
             static_cast<double>(weights[static_cast<size_t>((n * c.kernel_h * c.kernel_w + tap) * channels + i)]);
    }
  }
  return sum;
}

TEST(NarrowConvolutionsMatchADirectSum) {
  Random random(21);
  for (const ConvCase& test : kCases) {
    const ec_conv2d& c = test.conv;
    const int64_t k = c.kernel_h * c.kernel_w * (c.in_channels / c.group);
    const RandomNarrow factor(test.outputs, k, test.bits, &random);
    int64_t height = 0, width = 0;
    CHECK(ec_conv2d_output_size(&c, &height, &width) == EC_OK);
    const std::vector<float> x = random.Reals(c.batch * c.in_channels * c.height * c.width), bias = random.Reals(test.outputs);
    const std::vector<float> weights = WeightsOf(factor.view);
    std::vector<float> expected;
    for (int64_t i = 0; i < c.batch * test.outputs * height * width; ++i) {
      const int64_t pixel = i % (height * width), plane = i / (height * width), n = plane % test.outputs;
      expected.push_back(static_cast<float>(Reference(test, weights, x, plane / test.outputs, n, pixel / width, pixel % width) +
                                            static_cast<double>(bias[static_cast<size_t>(n)])));
    }
    for (const ec_parallel* parallel : {static_cast<const ec_parallel*>(nullptr), TwoThreads()}) {
      const std::vector<float> got = Convolve(factor.view, c, x, bias.data(), parallel);
      CHECK_MESSAGE(RelativeDifference(got, expected) < 1e-5, "case of %lld outputs, group %lld: %g",
                    static_cast<long long>(test.outputs), static_cast<long long>(c.group), RelativeDifference(got, expected));
    }
  }
}

// Of one group in int8, of several in float.
TEST(NarrowConvolutionsComputeInInt8) {
  Random random(25);
  for (const ConvCase& test : kCases) {
    const ec_conv2d& c = test.conv;
    const RandomNarrow factor(test.outputs, c.kernel_h * c.kernel_w * (c.in_channels / c.group), test.bits, &random);
    const std::vector<float> x = random.Reals(c.batch * c.in_channels * c.height * c.width), bias = random.Reals(test.outputs);
    const std::vector<float> exact = Convolve(factor.view, c, x, bias.data(), nullptr);
    const std::vector<float> one = Convolve(factor.view, c, x, bias.data(), nullptr, EC_COMPUTE_INT8);
    CHECK_MESSAGE(RelativeDifference(one, exact) < 0.02, "case of %lld outputs, group %lld: %g",
                  static_cast<long long>(test.outputs), static_cast<long long>(c.group), RelativeDifference(one, exact));
    CHECK((one == exact) == (c.group > 1));
    CHECK(Convolve(factor.view, c, x, bias.data(), TwoThreads(), EC_COMPUTE_INT8) == one);
  }
}

// Bit for bit the convolution and an addition behind it, also in the addend's place.
TEST(NarrowConvolutionsAddToWhatIsThere) {
  Random random(24);
  for (const ConvCase& test : kCases) {
    const ec_conv2d& c = test.conv;
    const RandomNarrow factor(test.outputs, c.kernel_h * c.kernel_w * (c.in_channels / c.group), test.bits, &random);
    const std::vector<float> x = random.Reals(c.batch * c.in_channels * c.height * c.width);
    std::vector<float> expected = Convolve(factor.view, c, x, nullptr, nullptr);
    std::vector<float> sum = random.Reals(static_cast<int64_t>(expected.size())), apart(sum.size());
    for (size_t i = 0; i < sum.size(); ++i) expected[i] += sum[i];
    size_t bytes = 0;
    CHECK(ec_lut_narrow_conv2d_workspace_bytes(&factor.view, &c, EC_COMPUTE_FLOAT, nullptr, &bytes) == EC_OK);
    std::vector<uint8_t> workspace(bytes);
    for (float* y : {apart.data(), sum.data()}) {
      const ec_epilogue epilogue = {sizeof(epilogue), nullptr, sum.data(), EC_ACTIVATION_NONE, 0};
      CHECK(ec_lut_narrow_conv2d(&factor.view, &c, x.data(), &epilogue, y, EC_COMPUTE_FLOAT, nullptr, workspace.data(), bytes) ==
            EC_OK);
      CHECK(std::memcmp(y, expected.data(), expected.size() * sizeof(float)) == 0);
    }
  }
}

TEST(TapSumsOfEveryInstructionSetAgree) {
  Random random(22);
  constexpr int64_t kTaps = 11, kLongest = 150;
  std::vector<int64_t> offsets;
  for (int64_t t = 0; t < kTaps; ++t) offsets.push_back(random.Between(0, 40));
  const std::vector<float> in = random.Reals(kLongest + 40 + kTapSlack), weights = random.Reals(kTapOutputs * kTaps);
  const std::vector<float> bias = random.Reals(kTapOutputs);
  for (int64_t length = 1; length <= kLongest; ++length) {
    const int64_t stride = length + kTapSlack;
    for (int64_t outputs = 1; outputs <= kTapOutputs; ++outputs) {
      const auto sums_of = [&](Isa isa) {
        Guarded<float> out(outputs * stride);
        TapSumsKernelsFor(isa).run({in.data(), offsets.data(), weights.data(), kTaps, outputs == 2 ? nullptr : bias.data(),
                                    length % 2 == 0, outputs, length, out.data(), stride});
        CHECK(out.GuardsIntact());
        std::vector<float> sums;
        for (int64_t o = 0; o < outputs; ++o) sums.insert(sums.end(), out.data() + o * stride, out.data() + o * stride + length);
        return sums;
      };
      const std::vector<float> expected = sums_of(Isa::kRef);
      for (const Isa isa : AvailableIsas()) {
        CHECK_MESSAGE(RelativeDifference(sums_of(isa), expected) < 1e-5, "%s, length %lld, %lld outputs", IsaName(isa),
                      static_cast<long long>(length), static_cast<long long>(outputs));
      }
    }
  }
}

TEST(BadNarrowFactorsAreRefused) {
  Random random(23);
  const RandomNarrow factor(6, 9, 4, &random);
  const ec_conv2d conv = {kSize, 1, 6, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6};
  const auto status_of = [&](void (*spoil)(ec_lut_narrow_factor*)) {
    ec_lut_narrow_factor view = factor.view;
    spoil(&view);
    size_t bytes = 0;
    return ec_lut_narrow_conv2d_workspace_bytes(&view, &conv, EC_COMPUTE_FLOAT, nullptr, &bytes);
  };
  CHECK(status_of([](ec_lut_narrow_factor*) {}) == EC_OK);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->size = 1; }) == EC_ERR_STRUCT_SIZE);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->bits = 9; }) == EC_ERR_BITS);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->n = 0; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->k = 10; }) == EC_ERR_SHAPE);  // of another kernel
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->k = INT64_MAX; }) == EC_ERR_OVERFLOW);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->exponent = 101; }) == EC_ERR_EXPONENT);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->codebook = nullptr; }) == EC_ERR_NULL_POINTER);
  CHECK(status_of([](ec_lut_narrow_factor* f) { f->row_scale = nullptr; }) == EC_ERR_NULL_POINTER);
  const int8_t lowest[16] = {-128};
  ec_lut_narrow_factor view = factor.view;
  view.codebook = lowest;
  CHECK(ec_lut_narrow_check(&view) == EC_ERR_CODEBOOKS);
}

}  // namespace
}  // namespace edgecomp::test
