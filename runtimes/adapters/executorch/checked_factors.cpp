// The factors whose values were checked already. ExecuTorch's kernels have no state, and to check all values in every call took
// half as long as the product.
#include <atomic>
#include <cstring>

#include "adapters/executorch/call_host.h"

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

// A number for a factor's sizes and addresses, which are all that a view of it holds; never 0.
uint64_t FingerprintOf(const Factor& factor) {
  uint64_t hash = 0;
  for (size_t i = 0; i < sizeof(factor.bytes); i += sizeof(uint64_t)) {
    uint64_t word;
    std::memcpy(&word, factor.bytes + i, sizeof(word));
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return hash == 0 ? 1 : hash;
}

Set& SetOf(uint64_t fingerprint) { return sets[fingerprint % kSets]; }

}  // namespace

bool WasChecked(const Factor& factor) {
  const uint64_t fingerprint = FingerprintOf(factor);
  for (const auto& known : SetOf(fingerprint).fingerprints) {
    if (known.load(std::memory_order_relaxed) == fingerprint) return true;
  }
  return false;
}

void RememberChecked(const Factor& factor) {
  const uint64_t fingerprint = FingerprintOf(factor);
  Set& set = SetOf(fingerprint);
  for (auto& known : set.fingerprints) {
    uint64_t empty = 0;
    if (known.compare_exchange_strong(empty, fingerprint, std::memory_order_relaxed)) return;
  }
  set.fingerprints[fingerprint / kSets % kWays].store(fingerprint, std::memory_order_relaxed);
}

}  // namespace edgecomp::et
