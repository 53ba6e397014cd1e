// Decoding a span of packed codes in NEON registers, shared by the ARM variants.
//
// Everything here is a template over the `Tag` of unroll.h.
//
// A vector holds 4 rows (a *part* of the tile's 16) times 4 columns. Index vectors are what decoding costs beside the look-ups, so
// each width has the fewest instructions that were found for it; tables repeat their entries where that saves a mask.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_NEON_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_NEON_H_

#include <arm_neon.h>

#include <type_traits>

#include "kernels/lut_matmul/lut_matmul.h"
#include "kernels/lut_matmul/unroll.h"

namespace edgecomp {

constexpr int kPartRows = 4;
constexpr int kParts = kTileRows / kPartRows;
constexpr int kPartBytes = kPlaneBytes / kParts;

// Hides how a value came about, where the compiler would spend instructions on exploiting it: pointers that walk on from loop to
// loop are otherwise recomputed from the start of each, and constants reloaded at every use.
template <class T>
EC_INLINE void HideOrigin(T& value) {
  if constexpr (std::is_pointer_v<T>) {
    __asm__("" : "+r"(value));
  } else {
    __asm__("" : "+w"(value));
  }
}

template <int kVectors>
EC_INLINE void LoadPairs(const uint8_t* from, uint8x16_t* to) {
  for (int i = 0; i < kVectors; ++i) to[i] = vld1q_u8(from + i * kPartBytes);
}

// ld1 of four registers is the fewest instructions, but demands consecutive ones.
template <int kVectors>
EC_INLINE void LoadConsecutive(const uint8_t* from, uint8x16_t* to) {
  if constexpr (kVectors == 4) {
    const uint8x16x4_t loaded = vld1q_u8_x4(from);
    for (int i = 0; i < 4; ++i) to[i] = loaded.val[i];
  } else {
    LoadPairs<kVectors>(from, to);
  }
}

template <class Tag, int kPlanes>
class NeonSpanDecoder {
 public:
  // Codes of 8 bits need no tables.
  EC_INLINE explicit NeonSpanDecoder(const LutTables* tables) {
    if constexpr (kTables == 4) table_ = vld1q_s8_x4(tables->entry[0]);
    if constexpr (kTables == 2) table_ = vld1q_s8_x2(tables->entry[0]);
    if constexpr (kTables == 1) table_.val[0] = vld1q_s8(tables->entry[0]);
  }

  // Calls use(group, part, weights) for each group of 4 columns and each of kUsedParts parts: weights are those of the columns
  // 4 group to 4 group + 3; group and part are compile-time constants. `codes` points to the first part's rows in plane 0, and
  // comes back on the next span.
  template <int kUsedParts, class Use>
  EC_INLINE void Decode(const uint8_t*& codes, const Use& use) const {
    uint8x16_t top[kUsedParts] = {};
    if constexpr (kPlanes == 5) LoadPairs<kUsedParts>(codes + 4 * kPlaneBytes, top);
    Unroll<Tag, kUnits>([&](auto unit) EC_LAMBDA_INLINE {
      uint8x16_t plane[kUnitPlanes][kUsedParts];
      if constexpr (kUnitPlanes == 1) {
        LoadConsecutive<kUsedParts>(codes, plane[0]);
      } else {  // many registers at once: consecutive ones would be copied about
        for (int p = 0; p < kUnitPlanes; ++p) LoadPairs<kUsedParts>(codes + p * kPlaneBytes, plane[p]);
      }
      codes += kUnitPlanes * kPlaneBytes;
      HideOrigin(codes);
      // Without this, the compiler moves the loads of all units to the front and runs out of registers.
      __asm__ volatile("" ::: "memory");
      Unroll<Tag, kUsedParts>([&](auto part) EC_LAMBDA_INLINE {
        uint8x16_t planes[kUnitPlanes];
        for (int p = 0; p < kUnitPlanes; ++p) planes[p] = plane[p][part];
        int8x16_t weights[kUnitGroups];
        DecodeUnit<unit>(planes, top[part], weights);
        Unroll<Tag, kUnitGroups>(
            [&](auto i) EC_LAMBDA_INLINE { use(std::integral_constant<int, unit * kUnitGroups + i>{}, part, weights[i]); });
      });
    });
    if constexpr (kPlanes == 5) codes += kPlaneBytes;
  }

  int8x16_t table() const { return table_.val[0]; }

 private:
  // A unit is the planes that it takes to decode some groups: single planes where codes do not cross planes.
  static constexpr int kUnitPlanes = kPlanes == 3 || kPlanes == 6 ? 3 : 1;
  static constexpr int kUnits = kPlanes == 5 ? 4 : kPlanes / kUnitPlanes;
  static constexpr int kUnitGroups = kColumnGroups / kUnits;
  static constexpr int kTables = kPlanes == 8 ? 0 : kPlanes == 4 ? 1 : kPlanes == 1 || kPlanes == 6 ? 4 : 2;

  static EC_INLINE uint8x16_t LowNibbles(uint8x16_t plane) { return vandq_u8(plane, vdupq_n_u8(0x0f)); }
  static EC_INLINE uint8x16_t HighNibbles(uint8x16_t plane) { return vshrq_n_u8(plane, 4); }

  // `top` is plane 4 of 5 bits, and unused elsewhere.
  template <int kUnit>
  EC_INLINE void DecodeUnit(const uint8x16_t* plane, uint8x16_t top, int8x16_t* weights) const {
    if constexpr (kPlanes == 1) {
      const uint8x16_t low = LowNibbles(plane[0]), high = HighNibbles(plane[0]);
      for (int i = 0; i < 4; ++i) {
        weights[i] = vqtbl1q_s8(table_.val[i], low);
        weights[4 + i] = vqtbl1q_s8(table_.val[i], high);
      }
    } else if constexpr (kPlanes == 2) {
      const uint8x16_t low = LowNibbles(plane[0]), high = HighNibbles(plane[0]);
      weights[0] = vqtbl1q_s8(table_.val[0], low);
      weights[1] = vqtbl1q_s8(table_.val[1], low);
      weights[2] = vqtbl1q_s8(table_.val[0], high);
      weights[3] = vqtbl1q_s8(table_.val[1], high);
    } else if constexpr (kPlanes == 3) {
      for (int p = 0; p < 3; ++p) {
        weights[2 * p] = vqtbl1q_s8(table_.val[0], LowNibbles(plane[p]));
        weights[2 * p + 1] = vqtbl1q_s8(table_.val[0], HighNibbles(plane[p]));
      }
      // The spare bits 3 and 7 of the three planes, gathered at the top of the nibbles: table 1 ignores bit 0, which is left over.
      const uint8x16_t two = vbslq_u8(vdupq_n_u8(0x44), vshrq_n_u8(plane[0], 1), plane[1]);
      const uint8x16_t three = vbslq_u8(vdupq_n_u8(0x66), vshrq_n_u8(two, 1), plane[2]);
      weights[6] = vqtbl1q_s8(table_.val[1], LowNibbles(three));
      weights[7] = vqtbl1q_s8(table_.val[1], HighNibbles(three));
    } else if constexpr (kPlanes == 4) {
      weights[0] = vqtbl1q_s8(table_.val[0], LowNibbles(plane[0]));
      weights[1] = vqtbl1q_s8(table_.val[0], HighNibbles(plane[0]));
    } else if constexpr (kPlanes == 5) {
      weights[0] = LookUp32<2 * kUnit>(LowNibbles(plane[0]), top);
      weights[1] = LookUp32<2 * kUnit + 1>(HighNibbles(plane[0]), top);
    } else if constexpr (kPlanes == 6) {
      for (int p = 0; p < 3; ++p) weights[p] = vqtbl4q_s8(table_, vandq_u8(plane[p], vdupq_n_u8(0x3f)));
      // The fourth code: two bits at the top of each plane, pushed down one after the other.
      const uint8x16_t two = vsriq_n_u8(plane[1], plane[0], 2);
      const uint8x16_t three = vsriq_n_u8(plane[2], two, 2);
      weights[3] = vqtbl4q_s8(table_, vshrq_n_u8(three, 2));
    } else {
      weights[0] = vreinterpretq_s8_u8(plane[0]);
    }
  }

  // A code of 5 bits: a nibble, and bit kBit of `top` above it.
  template <int kBit>
  EC_INLINE int8x16_t LookUp32(uint8x16_t nibbles, uint8x16_t top) const {
    if constexpr (kBit < 4) top = vshlq_n_u8(top, 4 - kBit);
    if constexpr (kBit > 4) top = vshrq_n_u8(top, kBit - 4);
    const uint8x16_t codes = vbslq_u8(vdupq_n_u8(0x10), top, nibbles);
    return vqtbl2q_s8(table_, codes);
  }

  std::conditional_t<kTables == 4, int8x16x4_t, int8x16x2_t> table_;
};

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_LUT_DECODE_NEON_H_
