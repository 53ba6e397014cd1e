/* The C interface of the edgecomp kernels: packed factors in, float32 out; and attention with a cache.
 *
 * The packed formats are specified in edgecomp/formats/lut.md and lut_narrow.md. No function throws, prints, allocates or aborts;
 * each returns a status. Pointers need the alignment of their element type and no more; what has no elements may be null, and no
 * rows, no indices and images of no pixels give outputs of none. All functions are safe to call from several threads at once.
 */
#ifndef EDGECOMP_EDGECOMP_H_
#define EDGECOMP_EDGECOMP_H_

#include <stddef.h>
#include <stdint.h>

#include "edgecomp/op_enums.h"

#if defined(_WIN32)
#define EC_API __declspec(dllexport)
#else
#define EC_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows when a function or a struct changes in a way that breaks callers. A struct that may grow begins with its own size, which
 * the caller sets to sizeof: another size than the library knows is refused, so that nothing is read that the caller does not have.
 */
#define EC_ABI_VERSION 2

/* Dimensions that a tensor may have. */
#define EC_MAX_RANK 16

typedef enum ec_status {
  EC_OK = 0,
  EC_ERR_NULL_POINTER = 1,     /* a required pointer is null */
  EC_ERR_BITS = 2,             /* bits is not 1 to 8 */
  EC_ERR_SHAPE = 3,            /* N, K, M, tiles or a convolution's geometry is out of range */
  EC_ERR_BLOCK_SIZE = 4,       /* block_size is no multiple of 32 that divides the padded K, or is above 65536 */
  EC_ERR_OVERFLOW = 5,         /* a size does not fit in size_t */
  EC_ERR_TILE_BOOK = 6,        /* tile_book names a codebook that is not there */
  EC_ERR_ROW_INDEX = 7,        /* row_index does not hold every row exactly once */
  EC_ERR_WORKSPACE = 8,        /* the workspace is null or too small */
  EC_ERR_INDEX_RANGE = 9,      /* an index of a gather is outside [-N, N) */
  EC_ERR_CODEBOOKS = 10,       /* a codebook entry is -128, or the table of 7 or 8 bits is not the fixed one */
  EC_ERR_SCALES = 11,          /* a block scale is -128 */
  EC_ERR_ROW_SCALE = 12,       /* a row scale is not finite */
  EC_ERR_COMPUTE = 13,         /* compute is neither EC_COMPUTE_FLOAT nor EC_COMPUTE_INT8 */
  EC_ERR_ISA_UNKNOWN = 14,     /* EDGECOMP_FORCE_ISA names no variant of this build */
  EC_ERR_ISA_UNAVAILABLE = 15, /* EDGECOMP_FORCE_ISA names a variant that this CPU cannot run */
  EC_ERR_OPERATOR = 16,        /* no operator of that name */
  EC_ERR_ARRAY = 17,           /* an array of a factor has another type or shape than its format demands */
  EC_ERR_TENSOR = 18,          /* another tensor of a call has another type or shape than the operator demands */
  EC_ERR_ATTRIBUTE = 19,       /* an attribute of a call is missing or has a value that the operator does not know */
  EC_ERR_STRUCT_SIZE = 20,     /* a struct's size is not what this library was built with */
  EC_ERR_MEMORY = 21,          /* the caller had no memory for an output or a workspace */
  EC_ERR_EXPONENT = 22,        /* the exponent of a lut_narrow factor is not -120 to 100 */
  EC_ERR_IDENTITY = 23,        /* bytes hold no identity */
} ec_status;

/* One line in English that says what must hold; never null. */
EC_API const char* ec_status_message(ec_status status);

/* What a status is about: "ok", "call" (arguments), "factor" (the arrays of a packed matrix) or "variant" (EDGECOMP_FORCE_ISA). */
EC_API const char* ec_status_kind(ec_status status);

/* "0.1.0"; matches the Python package that ships the library. */
EC_API const char* ec_version(void);
EC_API int32_t ec_abi_version(void);

/* What an artifact of edgecomp says of itself: SHA-256 digests in hexadecimal, and the version that exported it. */
typedef struct ec_identity {
  size_t size;          /* sizeof(ec_identity) */
  char id[65];          /* of the weights as packed, and of all that follows: two artifacts of one checkpoint share it */
  char original[65];    /* of what was compressed */
  char recipe[65];      /* of the resolved recipe */
  char calibration[65]; /* of the calibration's inputs; empty where there were none */
  char edgecomp[32];    /* "0.1.0" */
} ec_identity;

/* Finds the identity in an artifact's bytes: of a .onnx, .ort or .pte file, or of a checkpoint's manifest.json. The text is the
 * same in each, and the first that is whole counts. Time linear in the bytes; EC_ERR_IDENTITY where there is none. */
EC_API ec_status ec_identity_find(const void* bytes, size_t count, ec_identity* out);

/* A packed matrix of N rows and K columns; the arrays of lut.md, borrowed. */
typedef struct ec_lut_factor {
  uint32_t size; /* sizeof(ec_lut_factor) */
  int32_t bits;
  int64_t n;
  int64_t k;
  int64_t block_size;
  int64_t tiles;             /* T; ceil(N / 16) where row_index is null */
  int64_t books;             /* B */
  const uint8_t* codes;      /* [T, S, P, 16, 4] */
  const int8_t* codebooks;   /* [B, 2**bits], or [1, 256] */
  const uint16_t* tile_book; /* [T] */
  const int8_t* scales;      /* [T, blocks, 16] */
  const float* row_scale;    /* [T, 16] */
  const int32_t* row_index;  /* [T * 16], or null */
} ec_lut_factor;

/* Checks sizes: cheap (constant time), called by every function below. */
EC_API ec_status ec_lut_check_sizes(const ec_lut_factor* factor);

/* Checks what keeps the functions below inside the arrays: sizes, tile_book, and that row_index holds rows. Time linear in these
 * two: for a caller that cannot know whether the memory still holds what it once checked. */
EC_API ec_status ec_lut_check_bounds(const ec_lut_factor* factor);

/* Checks sizes and every value: once per factor, time linear in all arrays but the codes. Results mean something only for a factor
 * that passes. `scratch` holds N bytes and is needed only with row_index. */
EC_API ec_status ec_lut_check(const ec_lut_factor* factor, uint8_t* scratch);

/* Bytes that each array must have: the adapters hold a tensor's size against them. EC_ERR_OVERFLOW where one does not fit. */
typedef struct ec_lut_bytes {
  size_t codes, codebooks, tile_book, scales, row_scale, row_index;
} ec_lut_bytes;
EC_API ec_status ec_lut_array_bytes(const ec_lut_factor* factor, ec_lut_bytes* out);

/* Runs fn(arg, i) for every i in [0, count), in any order, on the host runtime's threads; returns when all are done. */
typedef struct ec_parallel {
  void* context;
  void (*run)(void* context, void (*fn)(void* arg, size_t i), size_t count, void* arg);
  int32_t threads; /* hint for splitting the work; 0 when unknown */
} ec_parallel;

/* What becomes of a product of M rows and N columns, before it is stored:
 *
 *   z[m, n] = sum + bias[n] + addend[m, n], in this order
 *   y[m, n] = activation(z[m, n]), or where gated is 1   y[m, j] = activation(z[m, j]) * z[m, N/2 + j], of N/2 columns
 *
 * The addend has the shape of z: the other terms of a sum, or a residual connection. y may be the addend where ec_lut_matmul is not
 * gated and in ec_lut_narrow_conv2d, and overlaps it nowhere else. */
typedef struct ec_epilogue {
  size_t size;         /* sizeof(ec_epilogue) */
  const float* bias;   /* [N], or null */
  const float* addend; /* or null */
  ec_activation activation;
  int32_t gated; /* 1 needs an even N; convolutions take 0 only */
} ec_epilogue;

/* y = epilogue(x w^T): x is [M, K], y [M, N] or [M, N/2], row-major. epilogue may be null: y = x w^T. parallel may be null: one
 * thread. workspace holds ec_lut_matmul_workspace_bytes bytes, for the same arguments. */
EC_API ec_status ec_lut_matmul_workspace_bytes(const ec_lut_factor* factor, int64_t m, const ec_epilogue* epilogue,
                                               ec_compute compute, const ec_parallel* parallel, size_t* bytes);
EC_API ec_status ec_lut_matmul(const ec_lut_factor* factor, const float* x, int64_t m, const ec_epilogue* epilogue, float* y,
                               ec_compute compute, const ec_parallel* parallel, void* workspace, size_t workspace_bytes);

/* y[i, :] = w[indices[i], :]; negative indices count from the end, as in ONNX Gather. */
EC_API ec_status ec_lut_gather(const ec_lut_factor* factor, const int64_t* indices, int64_t count, float* y,
                               const ec_parallel* parallel);

/* Geometry of a convolution over x [batch, in_channels, height, width]. The factor's columns are ordered (kernel row, kernel
 * column, channel), the channels of a group padded to a multiple of 32. Grouped convolutions compute in float whatever `compute`
 * says. */
typedef struct ec_conv2d {
  size_t size; /* sizeof(ec_conv2d) */
  int64_t batch, in_channels, height, width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int64_t group;
} ec_conv2d;

/* Without pixels (height or width 0) an image has no outputs, or where there is padding those of the padding: the bias. */
EC_API ec_status ec_conv2d_output_size(const ec_conv2d* conv, int64_t* out_height, int64_t* out_width);
EC_API ec_status ec_lut_conv2d_workspace_bytes(const ec_lut_factor* factor, const ec_conv2d* conv, ec_compute compute,
                                               const ec_parallel* parallel, size_t* bytes);
EC_API ec_status ec_lut_conv2d(const ec_lut_factor* factor, const ec_conv2d* conv, const float* x, const ec_epilogue* epilogue,
                               float* y, ec_compute compute, const ec_parallel* parallel, void* workspace, size_t workspace_bytes);

/* A packed matrix of N rows and few columns K; the arrays of lut_narrow.md, borrowed. */
typedef struct ec_lut_narrow_factor {
  uint32_t size; /* sizeof(ec_lut_narrow_factor) */
  int32_t bits;
  int64_t n;
  int64_t k;
  int64_t exponent;
  const uint8_t* codes;     /* [ceil(N K P / 8)] */
  const int8_t* codebook;   /* [2**bits], or null for 7 and 8 bits */
  const uint8_t* row_scale; /* [N] */
} ec_lut_narrow_factor;

/* Checks sizes: called by every function below. */
EC_API ec_status ec_lut_narrow_check_sizes(const ec_lut_narrow_factor* factor);

/* Checks sizes and every value, once per factor. */
EC_API ec_status ec_lut_narrow_check(const ec_lut_narrow_factor* factor);

/* A convolution whose columns are ordered (kernel row, kernel column, channel of the group), without padding; several groups
 * compute in float. In float the workspace holds all weights and, for each task, a padded copy of some of the input. */
EC_API ec_status ec_lut_narrow_conv2d_workspace_bytes(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, ec_compute compute,
                                                      const ec_parallel* parallel, size_t* bytes);
EC_API ec_status ec_lut_narrow_conv2d(const ec_lut_narrow_factor* factor, const ec_conv2d* conv, const float* x,
                                      const ec_epilogue* epilogue, float* y, ec_compute compute, const ec_parallel* parallel,
                                      void* workspace, size_t workspace_bytes);

/* Any operator of edgecomp/operators.md by its name, on tensors: for callers that have tensors and not factors, as a runtime's
 * adapter. Everything is checked in every call. */
typedef struct ec_tensor {
  ec_type type; /* EC_TYPE_NONE: absent */
  int32_t rank; /* at most EC_MAX_RANK */
  const int64_t* dims;
  const void* data; /* row-major */
} ec_tensor;

typedef struct ec_op_call {
  size_t size;             /* sizeof(ec_op_call) */
  const char* op;          /* "lut_matmul" */
  const ec_tensor* inputs; /* in the operator's order */
  size_t input_count;
  const int64_t*
      attributes;         /* the integers of all attributes, one after the other: of a choice its enumerator, of a float its bits */
  size_t attribute_count; /* of those integers */
  const ec_parallel* parallel;                                       /* null: one thread */
  void* context;                                                     /* of the next two */
  void* (*output)(void* context, const int64_t* dims, int32_t rank); /* memory for the output, called once; null: none to be had */
  void* (*temporary)(void* context, size_t bytes);                   /* memory for the length of the call, called twice at most */
  char* message; /* says what must hold and what was got where the call fails, null or so many bytes */
  size_t message_bytes;
} ec_op_call;
EC_API ec_status ec_op_run(const ec_op_call* call);

/* Kernel variants in order of priority: "amx", "avx512_vbmi", "avx512_vnni", "avx_vnni", "avx2" on x86-64, "neon_i8mm",
 * "neon_dotprod", "neon" on AArch64, and "ref". On Linux a process must ask for the matrix unit behind "amx": the first call that
 * needs to know the variants does, for all of its threads.
 */
EC_API int32_t ec_variant_count(void);
EC_API const char* ec_variant_name(int32_t index);  /* null outside [0, count) */
EC_API int32_t ec_variant_available(int32_t index); /* 1 where this CPU can run it */
/* The variant that runs: the first available, or what EDGECOMP_FORCE_ISA names (read once per process). */
EC_API ec_status ec_variant_selected(const char** name);
/* Kernels that have variants, by the names of their operators; those that one has besides follow its name ("lut_conv2d_float"). */
EC_API const char* ec_kernel_name(int32_t index); /* null behind the last */
/* The variant that a kernel runs, which is a lower one where it has none for the selected. */
EC_API ec_status ec_variant_of(const char* kernel, const char** name);

#ifdef __cplusplus
}
#endif

#endif /* EDGECOMP_EDGECOMP_H_ */
