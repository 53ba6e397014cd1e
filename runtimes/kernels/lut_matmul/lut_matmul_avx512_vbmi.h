// AVX-512 with VNNI and VBMI: Ice Lake and Zen 4 onwards. vpermb looks up the low 6 bits of a byte in a table of 64 entries: codes
// of 5 and 6 bits take one look-up, and narrower ones no mask, where the table repeats its 16 entries.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_VBMI_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_VBMI_H_

#include "kernels/lut_matmul/lut_matmul_avx512.h"

namespace edgecomp {

template <class Tag>
struct Avx512Vbmi : Avx512<Tag> {
  using Base = Avx512<Tag>;
  using Bytes = typename Base::Bytes;
  static Bytes ToIndex(Bytes nibbles) { return nibbles; }
  static Bytes LookUp(Bytes table, Bytes index) { return _mm512_permutexvar_epi8(index, table); }

  using WideTable = Bytes;
  template <int kEntries>
  static WideTable LoadWideTable(const int8_t* entries, Bytes offset) {
    static_assert(kEntries == 32 || kEntries == 64, "5 or 6 bits");
    if constexpr (kEntries == 64) return Base::AddBytes(_mm512_loadu_si512(entries), offset);
    return Base::AddBytes(_mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(entries))), offset);
  }
  // Bit kBit of `top` is the bit above the 4 of the index.
  template <int kBit>
  static Bytes LookUp32(WideTable table, Bytes index, Bytes top) {
    if constexpr (kBit < 4) top = _mm512_slli_epi16(top, 4 - kBit);
    if constexpr (kBit > 4) top = Base::template ShiftRight<kBit - 4>(top);
    return LookUp(table, Base::Select(Base::SetBytes(0x10), top, index));
  }
  static Bytes LookUp64(WideTable table, Bytes codes) { return LookUp(table, codes); }
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_MATMUL_AVX512_VBMI_H_
