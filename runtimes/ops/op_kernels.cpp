// The kernel variant of each operator, by which records know what ran: what the operators themselves say.
#include <cstring>

#include "ops/op_table.h"

namespace edgecomp {
namespace {

OpKernel KernelOf(const Op& op, size_t index) {
  if (op.kernel_count == 0) return {op.schema->name, [](Isa) { return Isa::kRef; }};
  return op.kernels[index];
}

// Calls body with each kernel of each operator until it returns true.
template <class Body>
void AnyKernel(const Body& body) {
  const OpList all = AllOps();
  for (size_t i = 0; i < all.count; ++i) {
    const size_t count = all.ops[i]->kernel_count == 0 ? 1 : all.ops[i]->kernel_count;
    for (size_t j = 0; j < count; ++j) {
      if (body(KernelOf(*all.ops[i], j))) return;
    }
  }
}

}  // namespace
}  // namespace edgecomp

const char* ec_kernel_name(int32_t index) {
  const char* name = nullptr;
  edgecomp::AnyKernel([&](const edgecomp::OpKernel& kernel) {
    if (index-- == 0) name = kernel.name;
    return name != nullptr;
  });
  return name;
}

ec_status ec_variant_of(const char* kernel, const char** name) {
  if (kernel == nullptr || name == nullptr) return EC_ERR_NULL_POINTER;
  *name = nullptr;
  edgecomp::Isa selected;
  const ec_status status = edgecomp::SelectedIsa(&selected);
  if (status != EC_OK) return status;
  edgecomp::AnyKernel([&](const edgecomp::OpKernel& known) {
    if (std::strcmp(known.name, kernel) == 0) *name = edgecomp::IsaName(known.isa_for(selected));
    return *name != nullptr;
  });
  return *name != nullptr ? EC_OK : EC_ERR_OPERATOR;
}
