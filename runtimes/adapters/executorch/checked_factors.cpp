#include "adapters/executorch/checked_factors.h"

#include <atomic>
#include <initializer_list>

namespace edgecomp::et {
namespace {

// A set is a cache line. Room for thousands of factors; one that finds its set full takes another's place, which is then checked
// again.
constexpr uint64_t kSets = 512;
constexpr uint64_t kWays = 8;
struct alignas(64) Set {
  std::atomic<uint64_t> fingerprints[kWays];
};
Set sets[kSets];

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
  return hash ^ hash >> 32;
}

uint64_t Address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

Set& SetOf(uint64_t fingerprint) { return sets[fingerprint % kSets]; }

}  // namespace

uint64_t FingerprintOf(const ec_lut_factor& factor) {
  uint64_t hash = 0;
  for (const int64_t size : {factor.n, factor.k, int64_t{factor.bits}, factor.block_size, factor.tiles, factor.books}) {
    hash = Mix(hash, static_cast<uint64_t>(size));
  }
  for (const uint64_t address : {Address(factor.codes), Address(factor.codebooks), Address(factor.tile_book),
                                 Address(factor.scales), Address(factor.row_scale), Address(factor.row_index)}) {
    hash = Mix(hash, address);
  }
  return hash == 0 ? 1 : hash;
}

bool WasChecked(uint64_t fingerprint) {
  for (const auto& known : SetOf(fingerprint).fingerprints) {
    if (known.load(std::memory_order_relaxed) == fingerprint) return true;
  }
  return false;
}

void RememberChecked(uint64_t fingerprint) {
  Set& set = SetOf(fingerprint);
  for (auto& known : set.fingerprints) {
    uint64_t empty = 0;
    if (known.compare_exchange_strong(empty, fingerprint, std::memory_order_relaxed)) return;
  }
  set.fingerprints[fingerprint / kSets % kWays].store(fingerprint, std::memory_order_relaxed);
}

}  // namespace edgecomp::et
