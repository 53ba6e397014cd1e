// Generated from edgecomp/ops.py by runtimes/ops/generate.py: change that, and run this.
// clang-format off
#ifndef EDGECOMP_OPS_OP_TABLE_H_
#define EDGECOMP_OPS_OP_TABLE_H_

#include "ops/op.h"

namespace edgecomp {

// Arrays of each format, as OpCall::array counts them, and its attributes, which come first in every operator.
namespace lut {
enum : size_t { kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex, kArrays };
enum : size_t { kN, kK, kBits, kBlockSize, kAttributes };
}  // namespace lut

namespace lut_narrow {
enum : size_t { kCodes, kCodebook, kRowScale, kArrays };
enum : size_t { kN, kK, kBits, kExponent, kAttributes };
}  // namespace lut_narrow

namespace attention {
enum : size_t { kArrays };
enum : size_t { kAttributes };
}  // namespace attention

// Inputs and attributes of each operator.
namespace lut_matmul {
enum : size_t { kX, kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex, kBias, kAddend, kInputs };
enum : size_t { kN, kK, kBits, kBlockSize, kCompute, kActivation, kGated, kAttributes };
extern const OpSchema kSchema;
}  // namespace lut_matmul

namespace lut_gather {
enum : size_t { kIndices, kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex, kInputs };
enum : size_t { kN, kK, kBits, kBlockSize, kAttributes };
extern const OpSchema kSchema;
}  // namespace lut_gather

namespace lut_conv2d {
enum : size_t { kX, kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex, kBias, kAddend, kInputs };
enum : size_t { kN, kK, kBits, kBlockSize, kCompute, kActivation, kKernelShape, kStrides, kPads, kDilations, kGroup, kAttributes };
extern const OpSchema kSchema;
}  // namespace lut_conv2d

namespace lut_narrow_conv2d {
enum : size_t { kX, kCodes, kCodebook, kRowScale, kBias, kAddend, kInputs };
enum : size_t { kN, kK, kBits, kExponent, kCompute, kActivation, kKernelShape, kStrides, kPads, kDilations, kGroup, kAttributes };
extern const OpSchema kSchema;
}  // namespace lut_narrow_conv2d

namespace kv_append_float32 {
enum : size_t { kPast, kX, kBefore, kTotal, kCos, kSin, kInputs };
enum : size_t { kFirst, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_append_float32

namespace kv_append_float16 {
enum : size_t { kPast, kX, kBefore, kTotal, kCos, kSin, kInputs };
enum : size_t { kFirst, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_append_float16

namespace kv_append_int8 {
enum : size_t { kPast, kX, kBefore, kTotal, kCos, kSin, kInputs };
enum : size_t { kFirst, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_append_int8

namespace kv_attention_float32 {
enum : size_t { kX, kKeys, kValues, kBefore, kCos, kSin, kInputs };
enum : size_t { kHeads, kHeadSize, kWindow, kScale, kCap, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_attention_float32

namespace kv_attention_float16 {
enum : size_t { kX, kKeys, kValues, kBefore, kCos, kSin, kInputs };
enum : size_t { kHeads, kHeadSize, kWindow, kScale, kCap, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_attention_float16

namespace kv_attention_int8 {
enum : size_t { kX, kKeys, kValues, kBefore, kCos, kSin, kInputs };
enum : size_t { kHeads, kHeadSize, kWindow, kScale, kCap, kAttributes };
extern const OpSchema kSchema;
}  // namespace kv_attention_int8

// What the operators do: each is defined beside its format's binder.
extern const Op kLutMatMul;
extern const Op kLutGather;
extern const Op kLutConv2D;
extern const Op kLutNarrowConv2D;
extern const Op kKVAppendFloat32;
extern const Op kKVAppendFloat16;
extern const Op kKVAppendInt8;
extern const Op kKVAttentionFloat32;
extern const Op kKVAttentionFloat16;
extern const Op kKVAttentionInt8;

constexpr size_t kOpCount = 10;

}  // namespace edgecomp

#endif  // EDGECOMP_OPS_OP_TABLE_H_
