// The entry nearest to a target, of codebooks of every width.
#ifndef EDGECOMP_FITTING_NEAREST_H_
#define EDGECOMP_FITTING_NEAREST_H_

#include "fitting/kernels.h"
#include "fitting/simd.h"

namespace edgecomp::fitting::FITTING_ISA {

// By the table over cells. Targets come doubled: `kPerStep` times the weight over its step.
struct NearestByTable {
  static constexpr float kPerStep = 2;

  explicit NearestByTable(const Codebook& book) : codebook(book) {}

  static Ints Cell(Floats target) {
    return CeilToInt(Max(Min(target, Broadcast(kCells / 2)), Broadcast(1 - kCells / 2))) + (kCells / 2 - 1);
  }
  Floats Value(Floats target) const { return Gather(codebook.nearest, Cell(target)); }
  Ints Code(Floats target) const { return RoundToInt(Gather(codebook.nearest_code, Cell(target))); }
  Floats ValueOf(Ints code) const { return Gather(codebook.values, code); }

  const Codebook& codebook;
};

#if defined(__AVX512F__)
// Up to 16 entries in registers: a binary search of `kBits` comparisons with boundaries, as the table's to the bit.
template <int kBits>
struct NearestInRegisters {
  static constexpr float kPerStep = 1;

  explicit NearestInRegisters(const Codebook& book) {
    float padded[32];
    for (int i = 0; i < 32; ++i) padded[i] = i < book.entries - 1 ? book.boundaries[i] : INFINITY;
    for (int level = 0; level < kBits; ++level) boundaries[level] = Load(padded + (1 << level) - 1);
    for (int i = 0; i < 16; ++i) padded[i] = i < book.entries ? book.values[i] : 0;
    values = Load(padded);
  }

  Ints Code(Floats target) const {
    __m512i code = _mm512_setzero_si512();
    for (int level = kBits - 1; level >= 0; --level) {
      const __m512 boundary = _mm512_permutexvar_ps(code, boundaries[level]);
      const __mmask16 above = _mm512_cmp_ps_mask(target, boundary, _CMP_GT_OQ);
      code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(1 << level));
    }
    return reinterpret_cast<Ints>(code);
  }
  Floats ValueOf(Ints code) const { return _mm512_permutexvar_ps(reinterpret_cast<__m512i>(code), values); }
  Floats Value(Floats target) const { return ValueOf(Code(target)); }

  Floats boundaries[kBits];
  Floats values;
};
#endif

// Calls `function` with what finds the nearest entries of a codebook fastest.
template <class Function>
auto WithNearest(const Codebook& codebook, const Function& function) {
#if defined(__AVX512F__)
  if (codebook.entries <= 2) return function(NearestInRegisters<1>(codebook));
  if (codebook.entries <= 4) return function(NearestInRegisters<2>(codebook));
  if (codebook.entries <= 8) return function(NearestInRegisters<3>(codebook));
  if (codebook.entries <= 16) return function(NearestInRegisters<4>(codebook));
#endif
  return function(NearestByTable(codebook));
}

}  // namespace edgecomp::fitting::FITTING_ISA

#endif  // EDGECOMP_FITTING_NEAREST_H_
