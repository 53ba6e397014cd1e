#include "core/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace edgecomp {

#if defined(__x86_64__)
namespace {

constexpr bool HasBit(uint32_t word, int bit) { return (word >> bit & 1) != 0; }

// The state components that the OS saves at a context switch. Read with the instruction itself, since _xgetbv needs -mxsave.
uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux lets a process use the matrix unit when it has asked (Documentation/arch/x86/xstate.rst); all of its threads may then. The
// numbers are the kernel's ABI, which old C libraries do not name.
bool MayUseTiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

CpuFeatures DetectCpuFeatures() {
  constexpr uint64_t kYmmState = 0x06;      // SSE, AVX
  constexpr uint64_t kZmmState = 0xe6;      // and opmask, upper halves of ZMM0-15, ZMM16-31
  constexpr uint64_t kTileState = 0x60000;  // AMX: configuration and data
  CpuFeatures features;
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return features;
  const bool osxsave = HasBit(ecx, 27);
  const bool fma_f16c = HasBit(ecx, 12) && HasBit(ecx, 29);  // which every processor with AVX2 has
  if (!osxsave || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return features;
  const uint64_t xcr0 = ReadXcr0();
  const bool avx2 = HasBit(ebx, 5);
  const bool avx512_f_bw_vl = HasBit(ebx, 16) && HasBit(ebx, 30) && HasBit(ebx, 31);
  features.avx2_fma = avx2 && fma_f16c && (xcr0 & kYmmState) == kYmmState;
  features.avx512_vnni = features.avx2_fma && avx512_f_bw_vl && HasBit(ecx, 11) && (xcr0 & kZmmState) == kZmmState;
  features.avx512_vbmi = features.avx512_vnni && HasBit(ecx, 1);
  const bool amx_tile_int8 = HasBit(edx, 24) && HasBit(edx, 25);
  features.amx_int8 = features.avx512_vbmi && amx_tile_int8 && (xcr0 & kTileState) == kTileState && MayUseTiles();
  const bool has_subleaf = eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0;
  features.avx_vnni = features.avx2_fma && has_subleaf && HasBit(eax, 4);
  return features;
}

#elif defined(__aarch64__) && defined(__linux__)

// Linux and Android. The bits are the kernel's ABI (arch/arm64/include/uapi/asm/hwcap.h); old C libraries do not name them all.
CpuFeatures DetectCpuFeatures() {
  constexpr unsigned long kHwcapAsimd = 1ul << 1;
  constexpr unsigned long kHwcapAsimdDp = 1ul << 20;
  constexpr unsigned long kHwcap2I8mm = 1ul << 13;
  const unsigned long hwcap = getauxval(AT_HWCAP);
  CpuFeatures features;
  features.neon = (hwcap & kHwcapAsimd) != 0;
  features.neon_dotprod = features.neon && (hwcap & kHwcapAsimdDp) != 0;
  features.neon_i8mm = features.neon_dotprod && (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
  return features;
}

#elif defined(__aarch64__)

// Advanced SIMD is part of every AArch64 platform's ABI; how to ask for more differs from system to system.
CpuFeatures DetectCpuFeatures() {
  CpuFeatures features;
  features.neon = true;
  return features;
}

#else

CpuFeatures DetectCpuFeatures() { return {}; }

#endif

}  // namespace edgecomp
