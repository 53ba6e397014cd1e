// What the public functions refuse.
#include <limits>
#include <string>

#include "check.h"
#include "support.h"

namespace edgecomp::test {
namespace {

// A value that is no enumerator, as a caller from C may pass.
ec_compute UnknownCompute() {
  const int value = 2;
  ec_compute compute;
  static_assert(sizeof(compute) == sizeof(value));
  std::memcpy(&compute, &value, sizeof(value));
  return compute;
}

RandomFactor MakeFactor(bool permuted = false) {
  Random random(7);
  return RandomFactor({20, 100, 4, 32, 2, permuted}, &random);
}

TEST(SizesAreChecked) {
  const RandomFactor good = MakeFactor();
  const auto status_of = [&good](void (*spoil)(ec_lut_factor*)) {
    ec_lut_factor factor = good.view();
    spoil(&factor);
    return ec_lut_check_sizes(&factor);
  };
  CHECK(ec_lut_check_sizes(&good.view()) == EC_OK);
  CHECK(ec_lut_check_sizes(nullptr) == EC_ERR_NULL_POINTER);
  CHECK(status_of([](ec_lut_factor* f) { f->codes = nullptr; }) == EC_ERR_NULL_POINTER);
  CHECK(status_of([](ec_lut_factor* f) { f->scales = nullptr; }) == EC_ERR_NULL_POINTER);
  CHECK(status_of([](ec_lut_factor* f) { f->bits = 0; }) == EC_ERR_BITS);
  CHECK(status_of([](ec_lut_factor* f) { f->bits = 9; }) == EC_ERR_BITS);
  CHECK(status_of([](ec_lut_factor* f) { f->n = 0; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_lut_factor* f) { f->k = -1; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_lut_factor* f) { f->tiles = 3; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_lut_factor* f) { f->books = 0; }) == EC_ERR_SHAPE);
  CHECK(status_of([](ec_lut_factor* f) { f->bits = 8; }) == EC_ERR_SHAPE);  // with two codebooks
  CHECK(status_of([](ec_lut_factor* f) { f->block_size = 0; }) == EC_ERR_BLOCK_SIZE);
  CHECK(status_of([](ec_lut_factor* f) { f->block_size = 48; }) == EC_ERR_BLOCK_SIZE);
  CHECK(status_of([](ec_lut_factor* f) { f->block_size = 96; }) == EC_ERR_BLOCK_SIZE);
  CHECK(status_of([](ec_lut_factor* f) { f->k = f->block_size = 131072; }) == EC_ERR_BLOCK_SIZE);
  CHECK(status_of([](ec_lut_factor* f) { f->k = std::numeric_limits<int64_t>::max(); }) == EC_ERR_OVERFLOW);
  CHECK(status_of([](ec_lut_factor* f) {
          f->k = int64_t{1} << 40;
          f->n = int64_t{1} << 30;
          f->tiles = f->n / 16;
        }) == EC_ERR_OVERFLOW);
}

TEST(ValuesAreChecked) {
  RandomFactor factor = MakeFactor(/*permuted=*/true);
  std::vector<uint8_t> scratch(20);
  const auto check = [&] { return ec_lut_check(&factor.view(), scratch.data()); };
  CHECK(check() == EC_OK);
  CHECK(ec_lut_check(&factor.view(), nullptr) == EC_ERR_WORKSPACE);

  // Each value spoiled, and put back.
  const auto status_with = [&check](auto* value, auto bad) {
    const auto good = *value;
    *value = bad;
    const ec_status status = check();
    *value = good;
    return status;
  };
  const ec_lut_factor& view = factor.view();
  CHECK(status_with(const_cast<int8_t*>(view.codebooks) + 31, int8_t{-128}) == EC_ERR_CODEBOOKS);
  CHECK(status_with(const_cast<int8_t*>(view.scales) + 5, int8_t{-128}) == EC_ERR_SCALES);
  CHECK(status_with(const_cast<uint16_t*>(view.tile_book) + 2, uint16_t{2}) == EC_ERR_TILE_BOOK);
  CHECK(status_with(const_cast<float*>(view.row_scale) + 47, std::numeric_limits<float>::infinity()) == EC_ERR_ROW_SCALE);
  CHECK(status_with(const_cast<float*>(view.row_scale), std::numeric_limits<float>::quiet_NaN()) == EC_ERR_ROW_SCALE);
  auto* row_index = const_cast<int32_t*>(view.row_index);
  int used = 0;
  while (row_index[used] < 0) ++used;
  CHECK(status_with(row_index + used, -1) == EC_ERR_ROW_INDEX);
  CHECK(status_with(row_index + used, -2) == EC_ERR_ROW_INDEX);
  CHECK(status_with(row_index + used, 20) == EC_ERR_ROW_INDEX);
  CHECK(status_with(row_index + used, (row_index[used] + 1) % 20) == EC_ERR_ROW_INDEX);
  CHECK(check() == EC_OK);

  Random random(8);
  RandomFactor wide({16, 32, 8, 32}, &random);
  CHECK(ec_lut_check(&wide.view(), nullptr) == EC_OK);
  const_cast<int8_t*>(wide.view().codebooks)[3] = 4;
  CHECK(ec_lut_check(&wide.view(), nullptr) == EC_ERR_CODEBOOKS);
}

TEST(BoundsAreCheckedAlone) {
  RandomFactor factor = MakeFactor(/*permuted=*/true);
  const ec_lut_factor& view = factor.view();
  CHECK(ec_lut_check_bounds(nullptr) == EC_ERR_NULL_POINTER);
  CHECK(ec_lut_check_bounds(&view) == EC_OK);

  // What gives wrong results is left to ec_lut_check: odd values, a row named twice.
  auto* row_index = const_cast<int32_t*>(view.row_index);
  int used = 0;
  while (row_index[used] < 0) ++used;
  const int32_t row = row_index[used];
  const_cast<int8_t*>(view.scales)[5] = INT8_MIN;
  const_cast<int8_t*>(view.codebooks)[31] = INT8_MIN;
  const_cast<float*>(view.row_scale)[47] = std::numeric_limits<float>::infinity();
  row_index[used] = (row + 1) % 20;
  CHECK(ec_lut_check_bounds(&view) == EC_OK);

  for (const int32_t bad : {-2, 20}) {
    row_index[used] = bad;
    CHECK(ec_lut_check_bounds(&view) == EC_ERR_ROW_INDEX);
  }
  row_index[used] = row;
  const_cast<uint16_t*>(view.tile_book)[2] = 2;
  CHECK(ec_lut_check_bounds(&view) == EC_ERR_TILE_BOOK);
}

TEST(MatMulRefusesBadCalls) {
  const RandomFactor factor = MakeFactor();
  const ec_lut_factor* f = &factor.view();
  const std::vector<float> x(100);
  std::vector<float> y(20);
  size_t bytes = 0;
  CHECK(ec_lut_matmul_workspace_bytes(f, 1, nullptr, EC_COMPUTE_INT8, nullptr, nullptr) == EC_ERR_NULL_POINTER);
  CHECK(ec_lut_matmul_workspace_bytes(f, -1, nullptr, EC_COMPUTE_INT8, nullptr, &bytes) == EC_ERR_SHAPE);
  CHECK(ec_lut_matmul_workspace_bytes(f, 1, nullptr, UnknownCompute(), nullptr, &bytes) == EC_ERR_COMPUTE);
  CHECK(ec_lut_matmul_workspace_bytes(f, 1, nullptr, EC_COMPUTE_INT8, nullptr, &bytes) == EC_OK);
  std::vector<uint8_t> workspace(bytes);
  const auto multiply = [&](const float* input, int64_t m, float* output, void* memory, size_t size) {
    return ec_lut_matmul(f, input, m, nullptr, output, EC_COMPUTE_INT8, nullptr, memory, size);
  };
  CHECK(multiply(x.data(), 1, y.data(), workspace.data(), bytes) == EC_OK);
  CHECK(multiply(nullptr, 0, nullptr, nullptr, 0) == EC_OK);
  CHECK(multiply(nullptr, 1, y.data(), workspace.data(), bytes) == EC_ERR_NULL_POINTER);
  CHECK(multiply(x.data(), 1, nullptr, workspace.data(), bytes) == EC_ERR_NULL_POINTER);
  CHECK(multiply(x.data(), 1, y.data(), nullptr, bytes) == EC_ERR_WORKSPACE);
  CHECK(multiply(x.data(), 1, y.data(), workspace.data(), bytes - 1) == EC_ERR_WORKSPACE);
  CHECK(multiply(x.data(), std::numeric_limits<int64_t>::max() / 8, y.data(), workspace.data(), bytes) == EC_ERR_OVERFLOW);
}

TEST(OperatorsOnTensorsRefuseWhatHasNoMemoryOrSizeOfItsOwn) {
  const RandomFactor factor = MakeFactor();
  const ec_lut_factor& f = factor.view();
  const int64_t code_dims[] = {2, 4, 4, 16, 4}, book_dims[] = {2, 16}, tile_dims[] = {2}, scale_dims[] = {2, 4, 16},
                row_dims[] = {2, 16};
  const std::vector<float> x(100), bias(20);
  const int64_t bias_dims[] = {20};
  float* at = nullptr;  // where the output is put, if not in memory of its own
  const auto run = [&](std::vector<int64_t> x_dims, const float* bias_data, std::string* message) {
    const ec_tensor inputs[] = {
        {EC_TYPE_FLOAT32, static_cast<int32_t>(x_dims.size()), x_dims.data(), x.data()},
        {EC_TYPE_UINT8, 5, code_dims, f.codes},
        {EC_TYPE_INT8, 2, book_dims, f.codebooks},
        {EC_TYPE_UINT16, 1, tile_dims, f.tile_book},
        {EC_TYPE_INT8, 3, scale_dims, f.scales},
        {EC_TYPE_FLOAT32, 2, row_dims, f.row_scale},
        {EC_TYPE_NONE, 0, nullptr, nullptr},
        {EC_TYPE_FLOAT32, 1, bias_dims, bias_data},
        {EC_TYPE_NONE, 0, nullptr, nullptr},
    };
    const int64_t attributes[] = {20, 100, 4, 32, EC_COMPUTE_FLOAT, EC_ACTIVATION_NONE, 0};
    std::vector<float> y(20);
    std::vector<uint8_t> temporary;
    struct Memory {
      float* y;
      std::vector<uint8_t>* temporary;
    } memory = {at != nullptr ? at : y.data(), &temporary};
    char text[256] = "";
    ec_op_call call = {};
    call.size = sizeof(call);
    call.op = "lut_matmul";
    call.inputs = inputs;
    call.input_count = 9;
    call.attributes = attributes;
    call.attribute_count = 7;
    call.context = &memory;
    call.output = [](void* context, const int64_t*, int32_t) -> void* { return static_cast<Memory*>(context)->y; };
    call.temporary = [](void* context, size_t bytes) {
      auto* held = static_cast<Memory*>(context)->temporary;
      held->resize(bytes);
      return static_cast<void*>(held->data());
    };
    call.message = text;
    call.message_bytes = sizeof(text);
    const ec_status status = ec_op_run(&call);
    *message = text;
    return status;
  };
  std::string message;
  CHECK_MESSAGE(run({1, 100}, bias.data(), &message) == EC_OK, "%s", message.c_str());
  CHECK(run({1, 100}, nullptr, &message) == EC_ERR_NULL_POINTER);
  CHECK_MESSAGE(message.find("bias must have memory") != std::string::npos, "%s", message.c_str());
  at = const_cast<float*>(x.data()) + 99;
  CHECK(run({1, 100}, bias.data(), &message) == EC_ERR_TENSOR);
  CHECK_MESSAGE(message.find("lies over x") != std::string::npos, "%s", message.c_str());
  at = nullptr;
  const int64_t huge = int64_t{1} << 32;
  for (const std::vector<int64_t>& dims : {std::vector<int64_t>{-1, -1, 100}, {huge, huge, 100}, {huge, huge, 0}}) {
    CHECK(run(dims, bias.data(), &message) == EC_ERR_TENSOR);
    CHECK_MESSAGE(message.find("whose product is an int64") != std::string::npos, "%s", message.c_str());
  }
}

TEST(GatherRefusesBadIndices) {
  for (const bool permuted : {false, true}) {
    const RandomFactor factor = MakeFactor(permuted);
    const std::vector<float> weights = Weights(factor.view());
    std::vector<float> y(200);
    for (const int64_t bad : {int64_t{20}, int64_t{-21}, std::numeric_limits<int64_t>::min()}) {
      const int64_t indices[2] = {0, bad};
      CHECK(ec_lut_gather(&factor.view(), indices, 2, y.data(), nullptr) == EC_ERR_INDEX_RANGE);
    }
    const int64_t indices[2] = {-1, 3};
    CHECK(ec_lut_gather(&factor.view(), indices, 2, y.data(), TwoThreads()) == EC_OK);
    CHECK(std::memcmp(y.data(), weights.data() + 19 * 100, 100 * sizeof(float)) == 0);
    CHECK(std::memcmp(y.data() + 100, weights.data() + 3 * 100, 100 * sizeof(float)) == 0);
    CHECK(ec_lut_gather(&factor.view(), nullptr, 1, y.data(), nullptr) == EC_ERR_NULL_POINTER);
    CHECK(ec_lut_gather(&factor.view(), nullptr, 0, nullptr, nullptr) == EC_OK);
  }
}

TEST(EveryStatusHasAMessage) {
  for (int status = EC_OK; status <= EC_ERR_MEMORY; ++status) {
    CHECK(std::strcmp(ec_status_message(static_cast<ec_status>(status)), "unknown status") != 0);
  }
  CHECK(ec_abi_version() == EC_ABI_VERSION);
  CHECK(ec_variant_name(-1) == nullptr && ec_variant_name(ec_variant_count()) == nullptr);
}

TEST(EveryOperatorHasAVariant) {
  const char* selected = nullptr;
  CHECK(ec_variant_selected(&selected) == EC_OK);
  const auto variant_of = [](const char* op) {
    const char* name = nullptr;
    CHECK_MESSAGE(ec_variant_of(op, &name) == EC_OK, "%s", op);
    return std::string(name == nullptr ? "" : name);
  };
  CHECK(variant_of("lut_matmul") == selected);  // it has kernels for every instruction set
  CHECK(variant_of("lut_conv2d_float") == selected);
  CHECK(variant_of("lut_gather") == "ref");
  CHECK(variant_of("lut_conv2d_float_grouped") == "ref");
  CHECK(variant_of("lut_conv2d") == variant_of("lut_narrow_conv2d_int8"));

  int32_t kernels = 0;
  for (; ec_kernel_name(kernels) != nullptr; ++kernels) CHECK(!variant_of(ec_kernel_name(kernels)).empty());
  CHECK(kernels == 13 && ec_kernel_name(-1) == nullptr);

  const char* name = selected;
  CHECK(ec_variant_of("lut_softmax", &name) == EC_ERR_OPERATOR && name == nullptr);
  CHECK(ec_variant_of(nullptr, &name) == EC_ERR_NULL_POINTER);
  CHECK(ec_variant_of("lut_matmul", nullptr) == EC_ERR_NULL_POINTER);
}

}  // namespace
}  // namespace edgecomp::test
