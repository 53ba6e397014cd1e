// What the CPU and its operating system let us run.
#ifndef EDGECOMP_CORE_CPU_FEATURES_H_
#define EDGECOMP_CORE_CPU_FEATURES_H_

namespace edgecomp {

struct CpuFeatures {
#if defined(__x86_64__)
  bool avx2_fma = false;     // AVX2 and FMA, with the YMM state saved by the OS
  bool avx_vnni = false;     // and the VNNI of 256 bits without AVX-512
  bool avx512_vnni = false;  // AVX-512 F, BW, VL and VNNI, with the ZMM and opmask state saved by the OS
  bool avx512_vbmi = false;  // and VBMI
  bool amx_int8 = false;     // and AMX for int8, with the permission that the OS asks for
#elif defined(__aarch64__)
  bool neon = false;          // Advanced SIMD
  bool neon_dotprod = false;  // and SDOT
  bool neon_i8mm = false;     // and SMMLA
#endif
};

CpuFeatures DetectCpuFeatures();

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_CPU_FEATURES_H_
