// Random factors, guarded buffers and runs of a chosen kernel variant.
#ifndef EDGECOMP_TESTS_CPP_SUPPORT_H_
#define EDGECOMP_TESTS_CPP_SUPPORT_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/isa.h"
#include "edgecomp/edgecomp.h"
#include "kernels/lut_matmul/lut_matmul.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define EC_FORBID(start, end) __asan_poison_memory_region(start, static_cast<size_t>((end) - (start)))
#define EC_ALLOW(start, end) __asan_unpoison_memory_region(start, static_cast<size_t>((end) - (start)))
#else
#define EC_FORBID(start, end) (void)0
#define EC_ALLOW(start, end) (void)0
#endif

namespace edgecomp::test {

// xorshift64*: the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint32_t Word() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>((state_ * 2685821657736338717u) >> 32);
  }
  int64_t Between(int64_t low, int64_t high) { return low + Word() % (high - low + 1); }  // inclusive
  float Real() { return static_cast<float>(Between(-1000000, 1000000)) * 1e-6f; }
  std::vector<float> Reals(int64_t count);

 private:
  uint64_t state_;
};

// An array at an address that is aligned to its elements and to nothing more, with guard bytes on both sides: to write them shows
// in GuardsIntact, and the address sanitizer reports to read them.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, size_t alignment = sizeof(T))
      : bytes_(static_cast<size_t>(count) * sizeof(T)), memory_(new uint8_t[bytes_ + 4 * kGuard]) {
    std::memset(memory_.get(), kPattern, bytes_ + 4 * kGuard);
    const auto address = reinterpret_cast<uintptr_t>(memory_.get() + kGuard);
    data_ = memory_.get() + kGuard + (64 - address % 64) + alignment;
    EC_FORBID(memory_.get(), data_);
    EC_FORBID(data_ + bytes_, memory_.get() + bytes_ + 4 * kGuard);
  }
  ~Guarded() { EC_ALLOW(memory_.get(), memory_.get() + bytes_ + 4 * kGuard); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  explicit Guarded(const std::vector<T>& values, size_t alignment = sizeof(T))
      : Guarded(static_cast<int64_t>(values.size()), alignment) {
    if (!values.empty()) std::memcpy(data_, values.data(), bytes_);
  }
  T* data() { return reinterpret_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }
  bool GuardsIntact() const {
    EC_ALLOW(memory_.get(), memory_.get() + bytes_ + 4 * kGuard);
    for (size_t i = 1; i <= kGuard; ++i) {
      if (data_[-static_cast<std::ptrdiff_t>(i)] != kPattern || data_[bytes_ + i - 1] != kPattern) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr uint8_t kPattern = 0xa5;
  size_t bytes_;
  std::unique_ptr<uint8_t[]> memory_;
  uint8_t* data_;
};

struct FactorShape {
  int64_t n;
  int64_t k;
  int32_t bits;
  int64_t block_size;
  int64_t books = 1;
  bool permuted = false;
  int32_t largest = 127;  // magnitude in the codebooks; 127 in any case for 7 and 8 bits
};

// A random factor that owns its arrays.
class RandomFactor {
 public:
  RandomFactor(const FactorShape& shape, Random* random);
  const ec_lut_factor& view() const { return view_; }
  ec_lut_factor* mutable_view() { return &view_; }
  // Brings the codebooks' entries within a magnitude, or makes all of them it; not for 7 and 8 bits.
  void LimitEntries(int32_t largest);
  void FillEntries(int32_t entry);

 private:
  std::unique_ptr<Guarded<uint8_t>> codes_;
  std::unique_ptr<Guarded<int8_t>> codebooks_, scales_;
  std::unique_ptr<Guarded<uint16_t>> tile_book_;
  std::unique_ptr<Guarded<float>> row_scale_;
  std::unique_ptr<Guarded<int32_t>> row_index_;
  ec_lut_factor view_ = {};
};

// The instruction sets that this machine can run.
std::vector<Isa> AvailableIsas();

// The product by the kernels of `isa`; checks the guards around y and the workspace, and that it is the same in the addend's place.
std::vector<float> Multiply(Isa isa, const ec_lut_factor& factor, const std::vector<float>& x, int64_t m, const float* bias,
                            ec_compute compute, const ec_parallel* parallel = nullptr);

std::vector<float> Multiply(Isa isa, const ec_lut_factor& factor, const std::vector<float>& x, int64_t m,
                            const ec_epilogue& epilogue, ec_compute compute, const ec_parallel* parallel = nullptr);

// The weights of all matrix rows: [N, K].
std::vector<float> Weights(const ec_lut_factor& factor);

// max |a - b| / max |b|; infinite where one is NaN and the other is not.
double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b);

// Tasks on two threads.
const ec_parallel* TwoThreads();

}  // namespace edgecomp::test

#endif  // EDGECOMP_TESTS_CPP_SUPPORT_H_
