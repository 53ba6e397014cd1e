// AVX-512 with VNNI: Cascade Lake. Codes are looked up in tables of 16 entries.
#include "kernels/lut_matmul/lut_matmul_avx512.h"

namespace edgecomp {

extern const LutMatMulKernels kLutMatMulAvx512Vnni;

namespace {

struct Avx512Vnni : Avx512<Avx512Vnni> {
  static Bytes ToIndex(Bytes nibbles) { return _mm512_and_si512(nibbles, SetBytes(0x0f)); }
  static Bytes LookUp(Bytes table, Bytes index) { return _mm512_shuffle_epi8(table, index); }

  // 32 or 64 entries, 16 a vector.
  struct WideTable {
    Bytes part[4];
  };
  template <int kEntries>
  static WideTable LoadWideTable(const int8_t* entries, Bytes offset) {
    WideTable table;
    for (int t = 0; t < kEntries / 16; ++t) table.part[t] = AddBytes(LoadTable(entries + 16 * t), offset);
    return table;
  }
  // Bit kBit of `top` is the bit above the index.
  template <int kBit>
  static Bytes LookUp32(const WideTable& table, Bytes index, Bytes top) {
    return SelectByBit<kBit>(top, LookUp(table.part[0], index), LookUp(table.part[1], index));
  }
  // The low 6 bits of each byte.
  static Bytes LookUp64(const WideTable& table, Bytes codes) {
    const Bytes index = ToIndex(codes);
    const Bytes lower = SelectByBit<4>(codes, LookUp(table.part[0], index), LookUp(table.part[1], index));
    const Bytes upper = SelectByBit<4>(codes, LookUp(table.part[2], index), LookUp(table.part[3], index));
    return SelectByBit<5>(codes, lower, upper);
  }
  template <int kBit>
  static Bytes SelectByBit(Bytes bits, Bytes if_0, Bytes if_1) {
    return _mm512_mask_blend_epi8(_mm512_test_epi8_mask(bits, SetBytes(1 << kBit)), if_0, if_1);
  }
};

}  // namespace

const LutMatMulKernels kLutMatMulAvx512Vnni = LutMatMulSimd<Avx512Vnni>::Kernels();

}  // namespace edgecomp
