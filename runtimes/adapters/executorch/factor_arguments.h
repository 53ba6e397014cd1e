// The six tensors and four integers that say a lut factor, the same in every lut operator.
#ifndef EDGECOMP_ADAPTERS_EXECUTORCH_FACTOR_ARGUMENTS_H_
#define EDGECOMP_ADAPTERS_EXECUTORCH_FACTOR_ARGUMENTS_H_

#include "adapters/executorch/arguments.h"

namespace edgecomp::et {

constexpr size_t kFirstFactorArgument = 1;  // argument 0 is x, or the indices
constexpr size_t kFactorTensors = 6;        // codes, codebooks, tile_book, scales, row_scale, row_index
constexpr size_t kFactorIntegers = 4;       // N, K, bits, block_size

// Reads a factor whose integers begin at argument `first_integer`, and checks all that a kernel trusts. The factor borrows the
// tensors: constants of the program, which a memory-mapped file holds.
bool ReadFactor(const Arguments& arguments, size_t first_integer, ec_lut_factor* factor);

}  // namespace edgecomp::et

#endif  // EDGECOMP_ADAPTERS_EXECUTORCH_FACTOR_ARGUMENTS_H_
