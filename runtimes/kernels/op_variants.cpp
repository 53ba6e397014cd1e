// The kernel variant of each operator: one line an operator.
#include <cstring>

#include "core/isa.h"
#include "kernels/lut_matmul/lut_matmul.h"
#include "kernels/lut_narrow/tap_sums.h"

namespace edgecomp {
namespace {

struct OpVariant {
  const char* op;
  Isa (*isa_for)(Isa selected);
};

Isa ScalarOnly(Isa) { return Isa::kRef; }

constexpr OpVariant kOps[] = {
    {"lut_matmul", LutMatMulIsaFor},    {"lut_gather", ScalarOnly},
    {"lut_conv2d", LutMatMulIsaFor},  // a product of pixels by the factor
    {"lut_conv2d_grouped", ScalarOnly}, {"lut_narrow_conv2d", TapSumsIsaFor},
};

}  // namespace
}  // namespace edgecomp

ec_status ec_variant_of(const char* op, const char** name) {
  if (op == nullptr || name == nullptr) return EC_ERR_NULL_POINTER;
  *name = nullptr;
  edgecomp::Isa selected;
  const ec_status status = edgecomp::SelectedIsa(&selected);
  if (status != EC_OK) return status;
  for (const edgecomp::OpVariant& variant : edgecomp::kOps) {
    if (std::strcmp(variant.op, op) != 0) continue;
    *name = edgecomp::IsaName(variant.isa_for(selected));
    return EC_OK;
  }
  return EC_ERR_OPERATOR;
}
