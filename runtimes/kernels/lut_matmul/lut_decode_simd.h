// Decoding a span of packed codes in vector registers, written once for the instruction sets of x86.
//
// Everything here is a template over `Simd`, the vector operations of one instruction set and the `Tag` of unroll.h.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_

#include "kernels/lut_matmul/lut_matmul.h"
#include "kernels/lut_matmul/unroll.h"

namespace edgecomp {

// A vector of weights holds 4 columns of Simd::kRows rows (a *part* of the tile's 16), 4 bytes a row.
template <class Simd, int kPlanes>
class SpanDecoder {
 public:
  using Bytes = typename Simd::Bytes;

  // Every weight comes out with `offset` added, as an unsigned byte: see lut_matmul_simd.h.
  EC_INLINE SpanDecoder(const LutTables& tables, uint8_t offset) : offset_(Simd::SetBytes(offset)) {
    if constexpr (kPlanes == 5 || kPlanes == 6) {
      wide_ = Simd::template LoadWideTable<16 * kTables>(tables.entry[0], offset_);
    } else if constexpr (kPlanes < 8) {
      for (int t = 0; t < kTables; ++t) table_[t] = Simd::AddBytes(Simd::LoadTable(tables.entry[t]), offset_);
    }
  }

  // Calls use(group, part, weights) for each group of 4 columns and each of kUsedParts parts: weights are those of the columns
  // 4 group to 4 group + 3; group and part are compile-time constants, and the parts of a group come one after the other. `span`
  // points to the first part's rows in plane 0.
  template <int kUsedParts, class Use>
  EC_INLINE void Decode(const uint8_t* span, const Use& use) const {
    Unroll<Simd, kUnits>([&](auto unit) EC_LAMBDA_INLINE {
      Indices indices[kUsedParts];
      for (int part = 0; part < kUsedParts; ++part) indices[part] = IndicesOf<unit>(span + part * kPartBytes);
      Unroll<Simd, kUnitGroups>([&](auto i) EC_LAMBDA_INLINE {
        Unroll<Simd, kUsedParts>([&](auto part) EC_LAMBDA_INLINE {
          use(std::integral_constant<int, unit * kUnitGroups + i>{}, part, LookUp<unit, i>(indices[part]));
        });
      });
    });
  }

 private:
  static constexpr int kPartBytes = 4 * Simd::kRows;
  // A unit is the planes that it takes to decode some groups: single planes where codes do not cross planes.
  static constexpr int kUnitPlanes = kPlanes == 3 || kPlanes == 6 ? 3 : 1;
  static constexpr int kUnits = kPlanes == 5 ? 4 : kPlanes / kUnitPlanes;
  static constexpr int kUnitGroups = kColumnGroups / kUnits;
  static constexpr int kTables = kPlanes == 1 || kPlanes == 6 ? 4 : kPlanes == 2 || kPlanes == 3 || kPlanes == 5 ? 2 : 1;

  // What the groups of a unit share: planes, or index vectors made of them.
  struct Indices {
    Bytes vector[4];
  };

  template <int kUnit>
  EC_INLINE Indices IndicesOf(const uint8_t* span) const {
    Bytes plane[kUnitPlanes];
    for (int p = 0; p < kUnitPlanes; ++p) plane[p] = Simd::Load(span + (kUnit * kUnitPlanes + p) * kPlaneBytes);
    if constexpr (kPlanes == 3) {
      // The spare bits 3 and 7 of the three planes, gathered at the top of the nibbles: table 1 ignores bit 0, which is left over.
      const Bytes two = Select(0x44, Simd::template ShiftRight<1>(plane[0]), plane[1]);
      const Bytes three = Select(0x66, Simd::template ShiftRight<1>(two), plane[2]);
      return {plane[0], plane[1], plane[2], three};
    } else if constexpr (kPlanes == 5) {
      return {plane[0], Simd::Load(span + 4 * kPlaneBytes)};
    } else if constexpr (kPlanes == 6) {
      // The fourth code: two bits at the top of each plane, pushed down one after the other.
      const Bytes two = Select(0xc0, plane[1], Simd::template ShiftRight<2>(plane[0]));
      const Bytes three = Select(0xc0, plane[2], Simd::template ShiftRight<2>(two));
      return {plane[0], plane[1], plane[2], Simd::template ShiftRight<2>(three)};
    } else if constexpr (kPlanes == 8) {
      return {plane[0]};
    } else {
      return {LowNibbles(plane[0]), HighNibbles(plane[0])};
    }
  }

  // The weights of group kGroup of a unit.
  template <int kUnit, int kGroup>
  EC_INLINE Bytes LookUp(const Indices& indices) const {
    const Bytes* vector = indices.vector;
    if constexpr (kPlanes == 1) {
      return Simd::LookUp(table_[kGroup % 4], vector[kGroup / 4]);
    } else if constexpr (kPlanes == 2) {
      return Simd::LookUp(table_[kGroup % 2], vector[kGroup / 2]);
    } else if constexpr (kPlanes == 3) {
      return Simd::LookUp(table_[kGroup / 6], Nibbles<kGroup % 2>(vector[kGroup / 2]));
    } else if constexpr (kPlanes == 4) {
      return Simd::LookUp(table_[0], vector[kGroup]);
    } else if constexpr (kPlanes == 5) {
      return Simd::template LookUp32<2 * kUnit + kGroup>(wide_, Nibbles<kGroup>(vector[0]), vector[1]);
    } else if constexpr (kPlanes == 6) {
      return Simd::LookUp64(wide_, vector[kGroup]);
    } else {
      return Simd::AddBytes(Simd::CodesToWeights(vector[0]), offset_);
    }
  }

  // The bits of if_1 where `mask` has ones; shifts go by 16-bit lanes, and the masks leave out what crossed from byte to byte.
  static EC_INLINE Bytes Select(uint8_t mask, Bytes if_1, Bytes if_0) { return Simd::Select(Simd::SetBytes(mask), if_1, if_0); }

  static EC_INLINE Bytes LowNibbles(Bytes plane) { return Simd::ToIndex(plane); }
  static EC_INLINE Bytes HighNibbles(Bytes plane) { return Simd::ToIndex(Simd::template ShiftRight<4>(plane)); }
  template <int kHigh>
  static EC_INLINE Bytes Nibbles(Bytes plane) {
    return kHigh != 0 ? HighNibbles(plane) : LowNibbles(plane);
  }

  Bytes offset_;
  Bytes table_[kTables];
  typename Simd::WideTable wide_;
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_SIMD_H_
