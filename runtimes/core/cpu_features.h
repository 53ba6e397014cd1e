// What the CPU and its operating system let us run.
#ifndef EDGECOMP_CORE_CPU_FEATURES_H_
#define EDGECOMP_CORE_CPU_FEATURES_H_

namespace edgecomp {

struct CpuFeatures {
  bool avx2_fma = false;     // AVX2 and FMA, with the YMM state saved by the OS
  bool avx512_vnni = false;  // AVX-512 F, BW, VL and VNNI, with the ZMM and opmask state saved by the OS
};

CpuFeatures DetectCpuFeatures();

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_CPU_FEATURES_H_
