// Registration with ExecuTorch's table of operators, which ends the process where one is registered twice: a second copy of this
// library, or a program that links it and loads it, must find the operators there and leave them.
#include <executorch/runtime/kernel/operator_registry.h>

#include <cstring>
#include <mutex>
#include <utility>

#include "adapters/executorch/call_host.h"
#include "edgecomp/executorch.h"
#include "ops/op_table.h"

namespace edgecomp::et {
namespace {

std::mutex registration;

bool IsRegistered(const char* name) {  // registry_has_op_function would log every operator that it does not find
  for (const auto& kernel : executorch::runtime::get_registered_kernels()) {
    if (std::strcmp(kernel.name_, name) == 0) return true;
  }
  return false;
}

// ExecuTorch calls a plain function, which cannot say for which operator: one for each, and each variant.
template <size_t kIndex, bool kInPlace>
void RunOpAt(Context& context, Stack stack) {
  RunCall(*AllOps().ops[kIndex], kInPlace, context, stack);
}

template <bool kInPlace, size_t... kIndices>
executorch::runtime::OpFunction FunctionAt(size_t index, std::index_sequence<kIndices...>) {
  static constexpr executorch::runtime::OpFunction kFunctions[] = {RunOpAt<kIndices, kInPlace>...};
  return kFunctions[index];
}

// Registers operator `index`, one variant; gives how many were added.
template <bool kInPlace>
int32_t Register(size_t index) {
  const OpSchema& schema = *AllOps().ops[index]->schema;
  const char* name = kInPlace ? schema.executorch_in_place_name : schema.executorch_name;
  if (name == nullptr || IsRegistered(name)) return 0;
  const auto function = FunctionAt<kInPlace>(index, std::make_index_sequence<kOpCount>());
  return executorch::runtime::register_kernel(executorch::runtime::Kernel(name, function)) == executorch::runtime::Error::Ok;
}

}  // namespace
}  // namespace edgecomp::et

int32_t ec_executorch_register(void) {
  const std::lock_guard<std::mutex> lock(edgecomp::et::registration);
  int32_t added = 0;
  for (size_t i = 0; i < edgecomp::kOpCount; ++i) {
    added += edgecomp::et::Register<false>(i) + edgecomp::et::Register<true>(i);
  }
  return added;
}

const char* ec_executorch_version(void) { return EDGECOMP_EXECUTORCH_VERSION; }
