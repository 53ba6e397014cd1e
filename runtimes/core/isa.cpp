#include "core/isa.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "core/cpu_features.h"

namespace edgecomp {
namespace {

struct IsaEntry {
  const char* name;
  bool (*available)(const CpuFeatures& features);
};

// Indexed by Isa.
constexpr IsaEntry kIsas[] = {
#if defined(__x86_64__)
    {"amx", [](const CpuFeatures& features) { return features.amx_int8; }},
    {"avx512_vbmi", [](const CpuFeatures& features) { return features.avx512_vbmi; }},
    {"avx512_vnni", [](const CpuFeatures& features) { return features.avx512_vnni; }},
    {"avx_vnni", [](const CpuFeatures& features) { return features.avx_vnni; }},
    {"avx2", [](const CpuFeatures& features) { return features.avx2_fma; }},
#elif defined(__aarch64__)
    {"neon_i8mm", [](const CpuFeatures& features) { return features.neon_i8mm; }},
    {"neon_dotprod", [](const CpuFeatures& features) { return features.neon_dotprod; }},
    {"neon", [](const CpuFeatures& features) { return features.neon; }},
#endif
    {"ref", [](const CpuFeatures&) { return true; }},
};
constexpr int kIsaCount = static_cast<int>(Isa::kCount);
static_assert(sizeof(kIsas) / sizeof(kIsas[0]) == kIsaCount, "one entry for each Isa");

struct Selection {
  ec_status status;
  Isa isa;
};

Selection Select() {
  const char* forced = std::getenv("EDGECOMP_FORCE_ISA");
  const bool any = forced == nullptr || forced[0] == '\0';
  bool known = any;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!any && std::strcmp(forced, IsaName(isa)) != 0) continue;
    known = true;
    if (IsaAvailable(isa)) return {EC_OK, isa};
  }
  return {known ? EC_ERR_ISA_UNAVAILABLE : EC_ERR_ISA_UNKNOWN, Isa::kRef};
}

// Detected once a process. A race is harmless: every thread computes the same value.
bool Detected(Isa isa) {
  static std::atomic<uint32_t> cache{0};
  constexpr uint32_t kFilled = 1u << 31;
  uint32_t bits = cache.load(std::memory_order_relaxed);
  if (bits == 0) {
    const CpuFeatures features = DetectCpuFeatures();
    bits = kFilled;
    for (int i = 0; i < kIsaCount; ++i) bits |= static_cast<uint32_t>(kIsas[i].available(features)) << i;
    cache.store(bits, std::memory_order_relaxed);
  }
  return (bits >> static_cast<int>(isa) & 1) != 0;
}

}  // namespace

bool IsaAvailable(Isa isa) { return Detected(isa); }

const char* IsaName(Isa isa) { return kIsas[static_cast<int>(isa)].name; }

ec_status SelectedIsa(Isa* isa) {
  static std::atomic<int> cache{-1};  // status * kIsaCount + isa, once known
  int cached = cache.load(std::memory_order_relaxed);
  if (cached < 0) {
    const Selection selection = Select();
    cached = static_cast<int>(selection.status) * kIsaCount + static_cast<int>(selection.isa);
    cache.store(cached, std::memory_order_relaxed);
  }
  *isa = static_cast<Isa>(cached % kIsaCount);
  return static_cast<ec_status>(cached / kIsaCount);
}

}  // namespace edgecomp

using edgecomp::Isa;

int32_t ec_variant_count(void) { return edgecomp::kIsaCount; }

const char* ec_variant_name(int32_t index) {
  return index >= 0 && index < edgecomp::kIsaCount ? edgecomp::IsaName(static_cast<Isa>(index)) : nullptr;
}

int32_t ec_variant_available(int32_t index) {
  return index >= 0 && index < edgecomp::kIsaCount && edgecomp::IsaAvailable(static_cast<Isa>(index)) ? 1 : 0;
}

ec_status ec_variant_selected(const char** name) {
  if (name == nullptr) return EC_ERR_NULL_POINTER;
  Isa isa = Isa::kRef;
  const ec_status status = edgecomp::SelectedIsa(&isa);
  *name = status == EC_OK ? edgecomp::IsaName(isa) : nullptr;
  return status;
}
