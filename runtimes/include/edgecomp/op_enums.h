/* Generated from edgecomp/ops.py by runtimes/ops/generate.py: change that, and run this. */
/* clang-format off */
#ifndef EDGECOMP_OP_ENUMS_H_
#define EDGECOMP_OP_ENUMS_H_

/* Element types of tensors. */
typedef enum ec_type {
  EC_TYPE_NONE = 0,
  EC_TYPE_FLOAT32 = 1,
  EC_TYPE_UINT8 = 2,
  EC_TYPE_INT8 = 3,
  EC_TYPE_UINT16 = 4,
  EC_TYPE_INT32 = 5,
  EC_TYPE_INT64 = 6,
  EC_TYPE_FLOAT16 = 7,
  EC_TYPE_OTHER = 8,
} ec_type;

/* The attribute `compute`. */
typedef enum ec_compute {
  EC_COMPUTE_FLOAT = 0,
  EC_COMPUTE_INT8 = 1,
} ec_compute;

/* The attribute `activation`. */
typedef enum ec_activation {
  EC_ACTIVATION_NONE = 0,
  EC_ACTIVATION_RELU = 1,
  EC_ACTIVATION_SILU = 2,
  EC_ACTIVATION_GELU = 3,
  EC_ACTIVATION_GELU_TANH = 4,
  EC_ACTIVATION_HARD_SWISH = 5,
} ec_activation;

#endif /* EDGECOMP_OP_ENUMS_H_ */
