// The C interface on arbitrary factors: nothing may read or write outside buffers of exactly the bytes that are declared.
//
// Built with AddressSanitizer and UndefinedBehaviorSanitizer; every buffer is an allocation of its own.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>

#include "edgecomp/edgecomp.h"

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;  // of one buffer, so that an input takes milliseconds

// Reads values off the fuzzer's input; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  template <class T>
  T Value() {
    T value{};
    Fill(&value, sizeof(T));
    return value;
  }
  // A small number, or any at all where `wild`.
  int64_t Size(int64_t least, int64_t most, bool wild) {
    if (wild) return Value<int64_t>();
    return least + Value<uint8_t>() % (most - least + 1);
  }
  void Fill(void* to, size_t bytes) {
    const size_t taken = bytes < left_ ? bytes : left_;
    if (taken != 0) std::memcpy(to, data_, taken);
    data_ += taken;
    left_ -= taken;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

// An allocation of exactly `bytes`; its contents repeat what the input gives.
class Buffer {
 public:
  Buffer(size_t bytes, Input* input) : bytes_(bytes), memory_(static_cast<uint8_t*>(std::malloc(bytes))) {
    if (input == nullptr) return;
    uint8_t pattern[61];
    std::memset(pattern, 0, sizeof(pattern));
    input->Fill(pattern, sizeof(pattern));
    for (size_t i = 0; i < bytes; ++i) memory_.get()[i] = pattern[i % sizeof(pattern)];
  }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(memory_.get());
  }
  size_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  size_t bytes_;
  std::unique_ptr<uint8_t, Free> memory_;
};

// Makes arrays valid, which arbitrary bytes hardly ever are; sizes stay as they are.
void Repair(const ec_lut_factor& factor, const ec_lut_bytes& bytes) {
  auto* codebooks = const_cast<int8_t*>(factor.codebooks);
  for (size_t i = 0; i < bytes.codebooks; ++i) {
    if (factor.bits >= 7) codebooks[i] = static_cast<int8_t>(i == 128 ? -127 : static_cast<int>(i) - (i < 128 ? 0 : 256));
    if (codebooks[i] == INT8_MIN) codebooks[i] = 0;
  }
  auto* scales = const_cast<int8_t*>(factor.scales);
  for (size_t i = 0; i < bytes.scales; ++i) {
    if (scales[i] == INT8_MIN) scales[i] = 1;
  }
  auto* tile_book = const_cast<uint16_t*>(factor.tile_book);
  for (int64_t tile = 0; tile < factor.tiles; ++tile) tile_book[tile] = static_cast<uint16_t>(tile_book[tile] % factor.books);
  auto* row_scale = const_cast<float*>(factor.row_scale);
  for (int64_t lane = 0; lane < factor.tiles * 16; ++lane) {
    if (!std::isfinite(row_scale[lane])) row_scale[lane] = 1;
    if (factor.row_index != nullptr) {  // rows from the last lane to the first
      const int64_t row = factor.tiles * 16 - 1 - lane;
      const_cast<int32_t*>(factor.row_index)[lane] = row < factor.n ? static_cast<int32_t>(row) : -1;
    }
  }
}

// A host that runs tasks backwards.
void RunBackwards(void*, void (*fn)(void*, size_t), size_t count, void* arg) {
  while (count-- > 0) fn(arg, count);
}

// Any epilogue, with an addend of `elements`.
struct RandomEpilogue {
  RandomEpilogue(int64_t n, size_t elements, bool may_be_gated, Input* input)
      : bias(static_cast<size_t>(n) * 4, input), addend(elements * 4, input) {
    const auto flags = input->Value<uint8_t>();
    value = {sizeof(value), (flags & 1) != 0 ? bias.as<float>() : nullptr, (flags & 2) != 0 ? addend.as<float>() : nullptr,
             static_cast<ec_activation>(flags >> 2 & 7), may_be_gated && flags >> 5 == 1 ? 1 : 0};
  }
  Buffer bias, addend;
  ec_epilogue value;
};

void MatMul(const ec_lut_factor& factor, int64_t m, ec_compute compute, const ec_parallel* parallel, Input* input) {
  if (m < 0 || m > 64) return;
  const auto rows = static_cast<size_t>(m);
  const RandomEpilogue epilogue(factor.n, rows * static_cast<size_t>(factor.n), /*may_be_gated=*/true, input);
  size_t workspace_bytes = 0;
  if (ec_lut_matmul_workspace_bytes(&factor, m, &epilogue.value, compute, parallel, &workspace_bytes) != EC_OK) return;
  if (workspace_bytes > kMostBytes) return;
  const auto columns = static_cast<size_t>(epilogue.value.gated == 1 ? factor.n / 2 : factor.n);
  const Buffer x(rows * static_cast<size_t>(factor.k) * 4, input);
  const Buffer y(rows * columns * 4, nullptr), workspace(workspace_bytes, nullptr);
  ec_lut_matmul(&factor, x.as<float>(), m, &epilogue.value, y.as<float>(), compute, parallel, workspace.as<void>(),
                workspace_bytes);
}

void Gather(const ec_lut_factor& factor, const ec_parallel* parallel, Input* input) {
  constexpr int64_t kCount = 5;
  const Buffer indices(kCount * 8, nullptr), y(static_cast<size_t>(kCount * factor.k) * 4, nullptr);
  for (int64_t i = 0; i < kCount; ++i) {
    const auto index = input->Value<int64_t>();
    indices.as<int64_t>()[i] = i == 0 ? index : index % factor.n;
  }
  ec_lut_gather(&factor, indices.as<int64_t>(), kCount, y.as<float>(), parallel);
}

// Bytes of the input and the output of a convolution to n channels; false where they are too many.
bool ImageBytes(const ec_conv2d& conv, int64_t n, size_t* in_bytes, size_t* out_bytes) {
  int64_t out_height = 0, out_width = 0;
  if (ec_conv2d_output_size(&conv, &out_height, &out_width) != EC_OK) return false;
  *in_bytes = *out_bytes = 4;
  for (const int64_t size : {conv.batch, conv.in_channels, conv.height, conv.width}) {
    if (__builtin_mul_overflow(*in_bytes, static_cast<size_t>(size), in_bytes)) return false;
  }
  for (const int64_t size : {conv.batch, n, out_height, out_width}) {
    if (__builtin_mul_overflow(*out_bytes, static_cast<size_t>(size), out_bytes)) return false;
  }
  return *in_bytes <= kMostBytes && *out_bytes <= kMostBytes / 16;
}

void NarrowConv2d(int64_t n, int64_t k, int32_t bits, const ec_conv2d& conv, ec_compute compute, const ec_parallel* parallel,
                  Input* input) {
  ec_lut_narrow_factor factor{sizeof(factor), bits, n, k, input->Value<int8_t>(), nullptr, nullptr, nullptr};
  const uint8_t placeholder = 0;
  factor.codes = factor.row_scale = &placeholder;
  factor.codebook = bits < 7 ? reinterpret_cast<const int8_t*>(&placeholder) : nullptr;
  size_t in_bytes = 0, out_bytes = 0, workspace_bytes = 0;
  if (ec_lut_narrow_conv2d_workspace_bytes(&factor, &conv, compute, parallel, &workspace_bytes) != EC_OK) return;
  if (workspace_bytes > kMostBytes || !ImageBytes(conv, n, &in_bytes, &out_bytes)) return;
  const auto weights = static_cast<size_t>(n * k);
  const Buffer codes((weights * static_cast<size_t>(bits >= 7 ? 8 : bits) + 7) / 8, input);
  const Buffer codebook(size_t{1} << bits, input), row_scale(static_cast<size_t>(n), input);
  factor.codes = codes.as<uint8_t>();
  if (bits < 7) factor.codebook = codebook.as<int8_t>();
  factor.row_scale = row_scale.as<uint8_t>();
  ec_lut_narrow_check(&factor);
  const Buffer x(in_bytes, input), y(out_bytes, nullptr), workspace(workspace_bytes, nullptr);
  const RandomEpilogue epilogue(n, out_bytes / 4, /*may_be_gated=*/false, input);
  ec_lut_narrow_conv2d(&factor, &conv, x.as<float>(), &epilogue.value, y.as<float>(), compute, parallel, workspace.as<void>(),
                       workspace_bytes);
}

void Conv2d(const ec_lut_factor& factor, const ec_conv2d& conv, ec_compute compute, const ec_parallel* parallel, Input* input) {
  size_t in_bytes = 0, out_bytes = 0, workspace_bytes = 0;
  if (ec_lut_conv2d_workspace_bytes(&factor, &conv, compute, parallel, &workspace_bytes) != EC_OK) return;
  if (workspace_bytes > kMostBytes || !ImageBytes(conv, factor.n, &in_bytes, &out_bytes)) return;
  const Buffer x(in_bytes, input), y(out_bytes, nullptr);
  const RandomEpilogue epilogue(factor.n, out_bytes / 4, /*may_be_gated=*/false, input);
  const Buffer workspace(workspace_bytes, nullptr);
  ec_lut_conv2d(&factor, &conv, x.as<float>(), &epilogue.value, y.as<float>(), compute, parallel, workspace.as<void>(),
                workspace_bytes);
}

ec_conv2d Geometry(Input* input, bool wild) {
  ec_conv2d conv{};
  conv.size = sizeof(conv);
  for (int64_t* size : {&conv.batch, &conv.in_channels, &conv.height, &conv.width}) *size = input->Size(0, 40, wild);
  for (int64_t* size :
       {&conv.kernel_h, &conv.kernel_w, &conv.stride_h, &conv.stride_w, &conv.dilation_h, &conv.dilation_w, &conv.group}) {
    *size = input->Size(1, 4, wild);
  }
  for (int64_t* size : {&conv.pad_top, &conv.pad_left, &conv.pad_bottom, &conv.pad_right}) *size = input->Size(0, 4, wild);
  return conv;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const auto flags = input.Value<uint8_t>();
  const bool wild = (flags & 1) != 0, repair = (flags & 2) != 0, permuted = (flags & 4) != 0, fitting = (flags & 8) != 0;
  const ec_compute compute = (flags & 16) != 0 ? EC_COMPUTE_INT8 : EC_COMPUTE_FLOAT;
  const ec_parallel backwards = {nullptr, RunBackwards, 3};
  const ec_parallel* parallel = (flags & 32) != 0 ? &backwards : nullptr;

  ec_conv2d conv = Geometry(&input, wild && (flags & 64) != 0);
  ec_lut_factor factor{};
  factor.size = sizeof(factor);
  factor.n = input.Size(1, 70, wild);
  factor.k = input.Size(1, 200, wild);
  factor.bits = static_cast<int32_t>(input.Size(1, 8, wild));
  factor.block_size = wild ? input.Value<int64_t>() : 32 * input.Size(1, 4, false);
  factor.tiles = input.Size(1, 6, wild);
  factor.books = input.Size(1, 3, wild);
  const int64_t m = input.Size(0, 20, wild);
  if (fitting && !wild) {  // sizes that agree, which arbitrary ones seldom do
    conv.in_channels = conv.group * (1 + conv.in_channels % 40);
    factor.n = conv.group * (1 + factor.n % 20);
    factor.k = conv.kernel_h * conv.kernel_w * ((conv.in_channels / conv.group + 31) / 32 * 32);
    factor.block_size = 32;
    factor.tiles = (factor.n + 15) / 16 + (permuted ? 1 : 0);
    if (factor.bits >= 7) factor.books = 1;
    NarrowConv2d(factor.n, conv.kernel_h * conv.kernel_w * (conv.in_channels / conv.group), factor.bits, conv, compute, parallel,
                 &input);
  }

  // Whether there is a row_index decides what sizes are allowed; no array is read yet.
  int32_t placeholder = 0;
  factor.row_index = permuted ? &placeholder : nullptr;
  ec_lut_bytes bytes;
  if (ec_lut_array_bytes(&factor, &bytes) != EC_OK) return 0;
  for (const size_t part : {bytes.codes, bytes.codebooks, bytes.tile_book, bytes.scales, bytes.row_scale, bytes.row_index}) {
    if (part > kMostBytes) return 0;
  }
  const Buffer codes(bytes.codes, &input), codebooks(bytes.codebooks, &input), tile_book(bytes.tile_book, &input);
  const Buffer scales(bytes.scales, &input), row_scale(bytes.row_scale, &input), row_index(bytes.row_index, &input);
  factor.codes = codes.as<uint8_t>();
  factor.codebooks = codebooks.as<int8_t>();
  factor.tile_book = tile_book.as<uint16_t>();
  factor.scales = scales.as<int8_t>();
  factor.row_scale = row_scale.as<float>();
  factor.row_index = permuted ? row_index.as<int32_t>() : nullptr;
  if (repair) Repair(factor, bytes);

  const Buffer scratch(static_cast<size_t>(factor.n), nullptr);
  const bool valid = ec_lut_check(&factor, scratch.as<uint8_t>()) == EC_OK;
  const bool in_bounds = ec_lut_check_bounds(&factor) == EC_OK;
  if (valid && !in_bounds) std::abort();
  if (!in_bounds) return 0;  // wrong values give wrong results, and no more
  MatMul(factor, m, compute, parallel, &input);
  Gather(factor, parallel, &input);
  Conv2d(factor, conv, compute, parallel, &input);
  return 0;
}
