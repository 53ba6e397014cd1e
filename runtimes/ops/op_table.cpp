// Generated from edgecomp/ops.py by runtimes/ops/generate.py: change that, and run this.
// clang-format off
#include "ops/op_table.h"

namespace edgecomp {
namespace {

constexpr const char* kComputeChoices[] = {"float", "int8"};
constexpr const char* kActivationChoices[] = {"none", "relu", "silu", "gelu", "gelu_tanh", "hard_swish"};

}  // namespace

namespace lut_matmul {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[..., K]"},
    {"codes", EC_TYPE_UINT8, false, "[T, S, P, 16, 4]"},
    {"codebooks", EC_TYPE_INT8, false, "[B, 2**bits]"},
    {"tile_book", EC_TYPE_UINT16, false, "[T]"},
    {"scales", EC_TYPE_INT8, false, "[T, blocks, 16]"},
    {"row_scale", EC_TYPE_FLOAT32, false, "[T, 16]"},
    {"row_index", EC_TYPE_INT32, true, "[T*16]"},
    {"bias", EC_TYPE_FLOAT32, true, "[N]"},
    {"addend", EC_TYPE_FLOAT32, true, "[..., N]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"N", AttributeKind::kInt, 1, nullptr},
    {"K", AttributeKind::kInt, 1, nullptr},
    {"bits", AttributeKind::kInt, 1, nullptr},
    {"block_size", AttributeKind::kInt, 1, nullptr},
    {"compute", AttributeKind::kChoice, 2, kComputeChoices},
    {"activation", AttributeKind::kChoice, 6, kActivationChoices},
    {"gated", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"lut_matmul", "LutMatMul", "edgecomp::lut_matmul.out", nullptr, kInputSchemas, kInputs, lut::kArrays, kAttributeSchemas, kAttributes, lut::kAttributes, EC_TYPE_FLOAT32, kAddend};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace lut_matmul

namespace lut_gather {
constexpr InputSchema kInputSchemas[] = {
    {"indices", EC_TYPE_INT64, false, "[...]"},
    {"codes", EC_TYPE_UINT8, false, "[T, S, P, 16, 4]"},
    {"codebooks", EC_TYPE_INT8, false, "[B, 2**bits]"},
    {"tile_book", EC_TYPE_UINT16, false, "[T]"},
    {"scales", EC_TYPE_INT8, false, "[T, blocks, 16]"},
    {"row_scale", EC_TYPE_FLOAT32, false, "[T, 16]"},
    {"row_index", EC_TYPE_INT32, true, "[T*16]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"N", AttributeKind::kInt, 1, nullptr},
    {"K", AttributeKind::kInt, 1, nullptr},
    {"bits", AttributeKind::kInt, 1, nullptr},
    {"block_size", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"lut_gather", "LutGather", "edgecomp::lut_gather.out", nullptr, kInputSchemas, kInputs, lut::kArrays, kAttributeSchemas, kAttributes, lut::kAttributes, EC_TYPE_FLOAT32, kInputs};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace lut_gather

namespace lut_conv2d {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[batch, in_channels, height, width]"},
    {"codes", EC_TYPE_UINT8, false, "[T, S, P, 16, 4]"},
    {"codebooks", EC_TYPE_INT8, false, "[B, 2**bits]"},
    {"tile_book", EC_TYPE_UINT16, false, "[T]"},
    {"scales", EC_TYPE_INT8, false, "[T, blocks, 16]"},
    {"row_scale", EC_TYPE_FLOAT32, false, "[T, 16]"},
    {"row_index", EC_TYPE_INT32, true, "[T*16]"},
    {"bias", EC_TYPE_FLOAT32, true, "[N]"},
    {"addend", EC_TYPE_FLOAT32, true, "[batch, N, out_height, out_width]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"N", AttributeKind::kInt, 1, nullptr},
    {"K", AttributeKind::kInt, 1, nullptr},
    {"bits", AttributeKind::kInt, 1, nullptr},
    {"block_size", AttributeKind::kInt, 1, nullptr},
    {"compute", AttributeKind::kChoice, 2, kComputeChoices},
    {"activation", AttributeKind::kChoice, 6, kActivationChoices},
    {"kernel_shape", AttributeKind::kInts, 2, nullptr},
    {"strides", AttributeKind::kInts, 2, nullptr},
    {"pads", AttributeKind::kInts, 4, nullptr},
    {"dilations", AttributeKind::kInts, 2, nullptr},
    {"group", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"lut_conv2d", "LutConv2D", "edgecomp::lut_conv2d.out", nullptr, kInputSchemas, kInputs, lut::kArrays, kAttributeSchemas, kAttributes, lut::kAttributes, EC_TYPE_FLOAT32, kInputs};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
static_assert(2 <= kMaxInts);
static_assert(2 <= kMaxInts);
static_assert(4 <= kMaxInts);
static_assert(2 <= kMaxInts);
}  // namespace lut_conv2d

namespace lut_narrow_conv2d {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[batch, in_channels, height, width]"},
    {"codes", EC_TYPE_UINT8, false, "[ceil(N*K*P/8)]"},
    {"codebook", EC_TYPE_INT8, true, "[2**bits]"},
    {"row_scale", EC_TYPE_UINT8, false, "[N]"},
    {"bias", EC_TYPE_FLOAT32, true, "[N]"},
    {"addend", EC_TYPE_FLOAT32, true, "[batch, N, out_height, out_width]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"N", AttributeKind::kInt, 1, nullptr},
    {"K", AttributeKind::kInt, 1, nullptr},
    {"bits", AttributeKind::kInt, 1, nullptr},
    {"exponent", AttributeKind::kInt, 1, nullptr},
    {"compute", AttributeKind::kChoice, 2, kComputeChoices},
    {"activation", AttributeKind::kChoice, 6, kActivationChoices},
    {"kernel_shape", AttributeKind::kInts, 2, nullptr},
    {"strides", AttributeKind::kInts, 2, nullptr},
    {"pads", AttributeKind::kInts, 4, nullptr},
    {"dilations", AttributeKind::kInts, 2, nullptr},
    {"group", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"lut_narrow_conv2d", "LutNarrowConv2D", "edgecomp::lut_narrow_conv2d.out", nullptr, kInputSchemas, kInputs, lut_narrow::kArrays, kAttributeSchemas, kAttributes, lut_narrow::kAttributes, EC_TYPE_FLOAT32, kAddend};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
static_assert(2 <= kMaxInts);
static_assert(2 <= kMaxInts);
static_assert(4 <= kMaxInts);
static_assert(2 <= kMaxInts);
}  // namespace lut_narrow_conv2d

namespace kv_append_float32 {
constexpr InputSchema kInputSchemas[] = {
    {"past", EC_TYPE_FLOAT32, false, "[batch, kv_heads, places, head_size]"},
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"total", EC_TYPE_INT32, false, "[]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"first", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"kv_append_float32", "KVAppendFloat32", "edgecomp::kv_append_float32.out", "edgecomp::kv_append_float32_", kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_FLOAT32, kPast};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_append_float32

namespace kv_append_float16 {
constexpr InputSchema kInputSchemas[] = {
    {"past", EC_TYPE_FLOAT16, false, "[batch, kv_heads, places, head_size]"},
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"total", EC_TYPE_INT32, false, "[]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"first", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"kv_append_float16", "KVAppendFloat16", "edgecomp::kv_append_float16.out", "edgecomp::kv_append_float16_", kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_FLOAT16, kPast};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_append_float16

namespace kv_append_int8 {
constexpr InputSchema kInputSchemas[] = {
    {"past", EC_TYPE_INT8, false, "[batch, kv_heads, places, head_size + 2]"},
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"total", EC_TYPE_INT32, false, "[]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"first", AttributeKind::kInt, 1, nullptr},
};
const OpSchema kSchema = {"kv_append_int8", "KVAppendInt8", "edgecomp::kv_append_int8.out", "edgecomp::kv_append_int8_", kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_INT8, kPast};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_append_int8

namespace kv_attention_float32 {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"keys", EC_TYPE_FLOAT32, false, "[batch, kv_heads, places, head_size]"},
    {"values", EC_TYPE_FLOAT32, false, "[batch, kv_heads, places, head_size]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"heads", AttributeKind::kInt, 1, nullptr},
    {"head_size", AttributeKind::kInt, 1, nullptr},
    {"window", AttributeKind::kInt, 1, nullptr},
    {"scale", AttributeKind::kFloat, 1, nullptr},
    {"cap", AttributeKind::kFloat, 1, nullptr},
};
const OpSchema kSchema = {"kv_attention_float32", "KVAttentionFloat32", "edgecomp::kv_attention_float32.out", nullptr, kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_FLOAT32, kInputs};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_attention_float32

namespace kv_attention_float16 {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"keys", EC_TYPE_FLOAT16, false, "[batch, kv_heads, places, head_size]"},
    {"values", EC_TYPE_FLOAT16, false, "[batch, kv_heads, places, head_size]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"heads", AttributeKind::kInt, 1, nullptr},
    {"head_size", AttributeKind::kInt, 1, nullptr},
    {"window", AttributeKind::kInt, 1, nullptr},
    {"scale", AttributeKind::kFloat, 1, nullptr},
    {"cap", AttributeKind::kFloat, 1, nullptr},
};
const OpSchema kSchema = {"kv_attention_float16", "KVAttentionFloat16", "edgecomp::kv_attention_float16.out", nullptr, kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_FLOAT32, kInputs};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_attention_float16

namespace kv_attention_int8 {
constexpr InputSchema kInputSchemas[] = {
    {"x", EC_TYPE_FLOAT32, false, "[batch, sequence, width]"},
    {"keys", EC_TYPE_INT8, false, "[batch, kv_heads, places, head_size + 2]"},
    {"values", EC_TYPE_INT8, false, "[batch, kv_heads, places, head_size + 2]"},
    {"before", EC_TYPE_INT32, false, "[batch]"},
    {"cos", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
    {"sin", EC_TYPE_FLOAT32, false, "[context, rotated/2]"},
};
constexpr AttributeSchema kAttributeSchemas[] = {
    {"heads", AttributeKind::kInt, 1, nullptr},
    {"head_size", AttributeKind::kInt, 1, nullptr},
    {"window", AttributeKind::kInt, 1, nullptr},
    {"scale", AttributeKind::kFloat, 1, nullptr},
    {"cap", AttributeKind::kFloat, 1, nullptr},
};
const OpSchema kSchema = {"kv_attention_int8", "KVAttentionInt8", "edgecomp::kv_attention_int8.out", nullptr, kInputSchemas, kInputs, attention::kArrays, kAttributeSchemas, kAttributes, attention::kAttributes, EC_TYPE_FLOAT32, kInputs};
static_assert(kInputs <= kMaxInputs && kAttributes <= kMaxAttributes);
}  // namespace kv_attention_int8

const char* TypeName(ec_type type) {
  switch (type) {
    case EC_TYPE_FLOAT32:
      return "float32";
    case EC_TYPE_UINT8:
      return "uint8";
    case EC_TYPE_INT8:
      return "int8";
    case EC_TYPE_UINT16:
      return "uint16";
    case EC_TYPE_INT32:
      return "int32";
    case EC_TYPE_INT64:
      return "int64";
    case EC_TYPE_FLOAT16:
      return "float16";
    case EC_TYPE_NONE:
      return "nothing";
    case EC_TYPE_OTHER:
      break;
  }
  return "another type";
}

OpList AllOps() {
  static constexpr const Op* kOps[kOpCount] = {
    &kLutMatMul,
    &kLutGather,
    &kLutConv2D,
    &kLutNarrowConv2D,
    &kKVAppendFloat32,
    &kKVAppendFloat16,
    &kKVAppendInt8,
    &kKVAttentionFloat32,
    &kKVAttentionFloat16,
    &kKVAttentionInt8,
  };
  return {kOps, kOpCount};
}

}  // namespace edgecomp
