// Loops whose index is a compile-time constant in the body: shifts and lane numbers are part of vector instructions, and what a
// body keeps in an array by constant index stays in registers.
//
// Everything here takes a `Tag`, a type that each source file declares in an unnamed namespace: no code built with that file's ISA
// flags can then be shared with another file by the linker.
#ifndef EDGECOMP_KERNELS_LUT_MATMUL_UNROLL_H_
#define EDGECOMP_KERNELS_LUT_MATMUL_UNROLL_H_

#include <type_traits>
#include <utility>

#define EC_INLINE inline __attribute__((always_inline))
#define EC_LAMBDA_INLINE __attribute__((always_inline))

namespace edgecomp {

template <class Tag, class Body, int... kIndices>
EC_INLINE void UnrollIndices(const Body& body, std::integer_sequence<int, kIndices...>) {
  (body(std::integral_constant<int, kIndices>{}), ...);
}

// Calls body(0), ..., body(kCount - 1), the arguments being std::integral_constants.
template <class Tag, int kCount, class Body>
EC_INLINE void Unroll(const Body& body) {
  UnrollIndices<Tag>(body, std::make_integer_sequence<int, kCount>{});
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_MATMUL_UNROLL_H_
