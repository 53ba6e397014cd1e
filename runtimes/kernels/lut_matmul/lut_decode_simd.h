// Decoding a span of packed codes in vector registers, written once for all instruction sets.
//
// Everything here is a template over `Simd`, the vector operations of one instruction set. A source file declares its Simd in an
// unnamed namespace: no code built with that file's ISA flags can then be shared with another file by the linker.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_

#include "kernels/lut_matmul/lut_matmul.h"

namespace edgecomp {

// Turns the planes of a span into 8 vectors of weights: weights[i] holds the columns 4 i to 4 i + 3 of Simd::kRows rows, 4 bytes a
// row.
template <class Simd, int kPlanes>
class SpanDecoder {
 public:
  using Bytes = typename Simd::Bytes;

  // Every weight comes out xor `flip`: 0x80 makes an int8 an unsigned byte with an offset of 128.
  SpanDecoder(const LutTables& tables, uint8_t flip) : flip_(Simd::SetBytes(flip)), low_nibbles_(Simd::SetBytes(0x0f)) {
    for (int t = 0; t < kTables; ++t) table_[t] = Simd::Xor(Simd::LoadTable(tables.entry[t]), flip_);
  }

  // `span` points to the first of the vector's rows in plane 0.
  void Decode(const uint8_t* span, Bytes (&weights)[kColumnGroups]) const {
    Bytes plane[kPlanes];
    for (int p = 0; p < kPlanes; ++p) plane[p] = Simd::Load(span + p * kPlaneBytes);
    if constexpr (kPlanes == 1) {
      const Bytes low = LowNibbles(plane[0]), high = HighNibbles(plane[0]);
      for (int i = 0; i < 4; ++i) {
        weights[i] = Simd::LookUp(table_[i], low);
        weights[4 + i] = Simd::LookUp(table_[i], high);
      }
    } else if constexpr (kPlanes == 2) {
      for (int p = 0; p < 2; ++p) {
        const Bytes low = LowNibbles(plane[p]), high = HighNibbles(plane[p]);
        weights[4 * p] = Simd::LookUp(table_[0], low);
        weights[4 * p + 1] = Simd::LookUp(table_[1], low);
        weights[4 * p + 2] = Simd::LookUp(table_[0], high);
        weights[4 * p + 3] = Simd::LookUp(table_[1], high);
      }
    } else if constexpr (kPlanes == 3) {
      DecodeNibblePairs<3>(plane, weights);
      // The nibbles' spare bits: bit 3 of plane b is bit b of code 6, bit 7 of plane b is bit b of code 7.
      const Bytes spare = Simd::SetBytes(0x88);
      const Bytes bit0 = Simd::template ShiftRight<3>(Simd::And(plane[0], spare));
      const Bytes bit1 = Simd::template ShiftRight<2>(Simd::And(plane[1], spare));
      const Bytes bit2 = Simd::template ShiftRight<1>(Simd::And(plane[2], spare));
      const Bytes codes = Simd::Or(Simd::Or(bit0, bit1), bit2);
      weights[6] = Simd::LookUp(table_[0], LowNibbles(codes));
      weights[7] = Simd::LookUp(table_[0], HighNibbles(codes));
    } else if constexpr (kPlanes == 4) {
      DecodeNibblePairs<4>(plane, weights);
    } else if constexpr (kPlanes == 5) {
      DecodePair5<0>(plane[0], plane[4], weights);
      DecodePair5<2>(plane[1], plane[4], weights);
      DecodePair5<4>(plane[2], plane[4], weights);
      DecodePair5<6>(plane[3], plane[4], weights);
    } else if constexpr (kPlanes == 6) {
      for (int t = 0; t < 2; ++t) {
        const Bytes* triple = plane + 3 * t;
        for (int q = 0; q < 3; ++q) weights[4 * t + q] = LookUp64(triple[q]);
        // The fourth code: two bits at the top of each of the three planes.
        const Bytes top = Simd::SetBytes(0xc0);
        const Bytes low = Simd::template ShiftRight<6>(Simd::And(triple[0], top));
        const Bytes middle = Simd::template ShiftRight<4>(Simd::And(triple[1], top));
        const Bytes high = Simd::template ShiftRight<2>(Simd::And(triple[2], top));
        weights[4 * t + 3] = LookUp64(Simd::Or(Simd::Or(low, middle), high));
      }
    } else {
      for (int i = 0; i < kColumnGroups; ++i) weights[i] = Simd::Xor(plane[i], flip_);
    }
  }

 private:
  static constexpr int kTables = kPlanes == 1 || kPlanes == 6 ? 4 : kPlanes == 2 || kPlanes == 5 ? 2 : 1;

  Bytes LowNibbles(Bytes plane) const { return Simd::And(plane, low_nibbles_); }
  Bytes HighNibbles(Bytes plane) const { return Simd::And(Simd::template ShiftRight<4>(plane), low_nibbles_); }

  // Two codes a plane, one a nibble, looked up whole.
  template <int kPairs>
  void DecodeNibblePairs(const Bytes* plane, Bytes (&weights)[kColumnGroups]) const {
    for (int p = 0; p < kPairs; ++p) {
      weights[2 * p] = Simd::LookUp(table_[0], LowNibbles(plane[p]));
      weights[2 * p + 1] = Simd::LookUp(table_[0], HighNibbles(plane[p]));
    }
  }

  // Codes i and i + 1 of 5 bits: the nibbles of a plane, and bits i and i + 1 of the last plane on top.
  template <int i>
  void DecodePair5(Bytes nibbles, Bytes top_bits, Bytes (&weights)[kColumnGroups]) const {
    const Bytes low = LowNibbles(nibbles), high = HighNibbles(nibbles);
    weights[i] = Simd::template SelectByBit<i>(top_bits, Simd::LookUp(table_[0], low), Simd::LookUp(table_[1], low));
    weights[i + 1] = Simd::template SelectByBit<i + 1>(top_bits, Simd::LookUp(table_[0], high), Simd::LookUp(table_[1], high));
  }

  // A code of 6 bits in the low bits of each byte.
  Bytes LookUp64(Bytes codes) const {
    const Bytes n = LowNibbles(codes);
    const Bytes lower = Simd::template SelectByBit<4>(codes, Simd::LookUp(table_[0], n), Simd::LookUp(table_[1], n));
    const Bytes upper = Simd::template SelectByBit<4>(codes, Simd::LookUp(table_[2], n), Simd::LookUp(table_[3], n));
    return Simd::template SelectByBit<5>(codes, lower, upper);
  }

  Bytes flip_;
  Bytes low_nibbles_;
  Bytes table_[kTables];
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_
