// A call of an operator of ours as ExecuTorch makes it, and its context as the host.
//
// Kernels are registered in the boxed form, a span of tagged values in the order of the operator's schema, not through
// EXECUTORCH_LIBRARY: that wrapper ends the process where an argument has another type than declared, and a damaged program must
// end with a message.
#ifndef EDGECOMP_ADAPTERS_EXECUTORCH_CALL_HOST_H_
#define EDGECOMP_ADAPTERS_EXECUTORCH_CALL_HOST_H_

#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/core/span.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

#include "ops/op.h"

namespace edgecomp::et {

using Context = executorch::runtime::KernelRuntimeContext;
using Stack = executorch::runtime::Span<executorch::runtime::EValue*>;

// Runs a call of `op`, or fails it with a message "edgecomp::lut_matmul.out: ...". `in_place`: of the variant that writes to the
// first input.
void RunCall(const Op& op, bool in_place, Context& context, Stack stack);

// Whether a factor with this view was checked before. Another program may later lie at the same addresses.
bool WasChecked(const Factor& factor);
void RememberChecked(const Factor& factor);

// ExecuTorch's thread pool; a hint of one thread where the work must stay on this one.
ec_parallel PoolThreads();

}  // namespace edgecomp::et

#endif  // EDGECOMP_ADAPTERS_EXECUTORCH_CALL_HOST_H_
