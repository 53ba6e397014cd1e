// The arguments of a call, as ExecuTorch hands them over: a span of tagged values in the order of the operator's schema.
//
// Kernels here are registered in this boxed form, not through EXECUTORCH_LIBRARY: that wrapper ends the process where an argument
// has another type than declared, and a damaged program must end with a message.
#ifndef EDGECOMP_ADAPTERS_EXECUTORCH_ARGUMENTS_H_
#define EDGECOMP_ADAPTERS_EXECUTORCH_ARGUMENTS_H_

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/exec_aten/util/tensor_dimension_limit.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

#include "edgecomp/edgecomp.h"

namespace edgecomp::et {

using Context = executorch::runtime::KernelRuntimeContext;
using Stack = executorch::runtime::Span<executorch::runtime::EValue*>;
using Tensor = executorch::aten::Tensor;
using ScalarType = executorch::aten::ScalarType;
using SizesType = executorch::aten::SizesType;
using Error = executorch::runtime::Error;

constexpr size_t kMaxRank = executorch::runtime::kTensorDimensionLimit;

struct Shape {
  SizesType dims[kMaxRank];
  size_t rank;
};
Shape ShapeOf(const Tensor& tensor);

// "[2, 3]"
struct ShapeText {
  explicit ShapeText(const Shape& shape);
  explicit ShapeText(const Tensor& tensor) : ShapeText(ShapeOf(tensor)) {}
  char text[16 * kMaxRank];
};

const char* TypeName(ScalarType type);

// Every reader returns false where an argument is not what the schema says; the call has then failed with a message.
class Arguments {
 public:
  Arguments(const char* op, Context* context, Stack stack) : op_(op), context_(context), stack_(stack) {}

  // At least `count` arguments, the output's included.
  bool RequireCount(size_t count) const;
  bool ReadInt(size_t index, const char* name, int64_t* value) const;
  bool ReadInts(size_t index, const char* name, int64_t* values, size_t count) const;
  bool ReadCompute(size_t index, ec_compute* compute) const;
  // A tensor of this type whose elements lie in row-major order.
  bool ReadTensor(size_t index, const char* name, ScalarType type, const Tensor** tensor) const;
  // As above; null where the argument is None.
  bool ReadOptionalTensor(size_t index, const char* name, ScalarType type, const Tensor** tensor) const;
  // The optional bias, float32 [N].
  bool ReadBias(size_t index, int64_t n, const float** bias) const;
  // The float32 output at `index`, given this shape.
  bool ResizeOutput(size_t index, const Shape& shape, float** data) const;
  // Memory until the end of the call; null for no bytes.
  bool AllocateTemporary(size_t bytes, void** memory) const;

  // Fails the call: "edgecomp::lut_matmul.out: ...". Always false.
  __attribute__((format(printf, 3, 4))) bool Fail(Error error, const char* format, ...) const;
  // Fails the call with a status of the C interface and what was computed on.
  bool FailWith(ec_status status, const ec_lut_factor& factor, const Tensor& input) const;

 private:
  const char* op_;
  Context* context_;
  Stack stack_;
};

// ExecuTorch's thread pool, for the length of one call.
class PoolThreads {
 public:
  PoolThreads();
  // Null where the work must stay on this thread.
  const ec_parallel* parallel() const { return parallel_.threads > 1 ? &parallel_ : nullptr; }

 private:
  ec_parallel parallel_;
};

}  // namespace edgecomp::et

#endif  // EDGECOMP_ADAPTERS_EXECUTORCH_ARGUMENTS_H_
