// Registration with ExecuTorch's table of operators, which ends the process where one is registered twice: a second copy of this
// library, or a program that links it and loads it, must find the operators there and leave them.
#include <executorch/runtime/kernel/operator_registry.h>

#include <cstring>
#include <mutex>

#include "adapters/executorch/lut_ops.h"
#include "edgecomp/executorch.h"

namespace edgecomp::et {
namespace {

constexpr struct {
  const char* name;
  executorch::runtime::OpFunction function;
} kOperators[] = {{kLutMatMul, RunLutMatMul}, {kLutGather, RunLutGather}, {kLutConv2D, RunLutConv2D}};

std::mutex registration;

bool IsRegistered(const char* name) {  // registry_has_op_function would log every operator that it does not find
  for (const auto& kernel : executorch::runtime::get_registered_kernels()) {
    if (std::strcmp(kernel.name_, name) == 0) return true;
  }
  return false;
}

}  // namespace
}  // namespace edgecomp::et

int32_t ec_executorch_register(void) {
  const std::lock_guard<std::mutex> lock(edgecomp::et::registration);
  int32_t added = 0;
  for (const auto& op : edgecomp::et::kOperators) {
    if (edgecomp::et::IsRegistered(op.name)) continue;
    const auto error = executorch::runtime::register_kernel(executorch::runtime::Kernel(op.name, op.function));
    if (error == executorch::runtime::Error::Ok) ++added;
  }
  return added;
}

const char* ec_executorch_version(void) { return EDGECOMP_EXECUTORCH_VERSION; }
