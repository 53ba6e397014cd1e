#include "edgecomp/edgecomp.h"

const char* ec_status_message(ec_status status) {
  switch (status) {
    case EC_OK:
      return "ok";
    case EC_ERR_NULL_POINTER:
      return "a required pointer must not be null";
    case EC_ERR_BITS:
      return "bits must be 1 to 8";
    case EC_ERR_SHAPE:
      return "N, K, M, the tiles, the codebooks and a convolution's geometry must be in range and fit each other";
    case EC_ERR_BLOCK_SIZE:
      return "block_size must be a multiple of 32 that divides K rounded up to 32, and at most 65536";
    case EC_ERR_OVERFLOW:
      return "the sizes must fit in size_t";
    case EC_ERR_TILE_BOOK:
      return "every entry of tile_book must name a codebook that is there";
    case EC_ERR_ROW_INDEX:
      return "row_index must hold every row of 0..N-1 exactly once, and -1 elsewhere";
    case EC_ERR_WORKSPACE:
      return "the workspace must hold as many bytes as the function for its size says";
    case EC_ERR_INDEX_RANGE:
      return "every index must lie in [-N, N)";
    case EC_ERR_CODEBOOKS:
      return "codebooks must lie in [-127, 127], and be the fixed table for 7 and 8 bits";
    case EC_ERR_SCALES:
      return "scales must lie in [-127, 127]";
    case EC_ERR_ROW_SCALE:
      return "row_scale must be finite";
    case EC_ERR_COMPUTE:
      return "compute must be float or int8";
    case EC_ERR_ISA_UNKNOWN:
      return "EDGECOMP_FORCE_ISA must name a kernel variant of this build";
    case EC_ERR_ISA_UNAVAILABLE:
      return "EDGECOMP_FORCE_ISA must name a kernel variant that this CPU can run";
    case EC_ERR_OPERATOR:
      return "the operator must be one that this build has kernels for";
    case EC_ERR_ARRAY:
      return "every array must have the type and shape that its format demands";
    case EC_ERR_TENSOR:
      return "every tensor must have the type and shape that the operator demands";
    case EC_ERR_ATTRIBUTE:
      return "every attribute must be there, with a value that the operator knows";
    case EC_ERR_STRUCT_SIZE:
      return "the size of every struct must be its sizeof in the header of this library's version";
    case EC_ERR_MEMORY:
      return "there must be memory for outputs and workspaces";
    case EC_ERR_EXPONENT:
      return "exponent must be -120 to 100";
    case EC_ERR_IDENTITY:
      return "bytes must hold an identity, as artifacts that edgecomp exports do";
  }
  return "unknown status";
}

const char* ec_status_kind(ec_status status) {
  switch (status) {
    case EC_OK:
      return "ok";
    case EC_ERR_BITS:
    case EC_ERR_BLOCK_SIZE:
    case EC_ERR_TILE_BOOK:
    case EC_ERR_ROW_INDEX:
    case EC_ERR_CODEBOOKS:
    case EC_ERR_SCALES:
    case EC_ERR_ROW_SCALE:
    case EC_ERR_ARRAY:
    case EC_ERR_EXPONENT:
      return "factor";
    case EC_ERR_ISA_UNKNOWN:
    case EC_ERR_ISA_UNAVAILABLE:
      return "variant";
    default:
      return "call";
  }
}

const char* ec_version(void) { return EDGECOMP_VERSION; }

int32_t ec_abi_version(void) { return EC_ABI_VERSION; }
