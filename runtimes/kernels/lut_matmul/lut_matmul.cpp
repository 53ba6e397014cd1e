// The public functions of lut_matmul.
#include "kernels/lut_matmul/lut_matmul.h"

#include "core/checked_math.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp {
namespace {

ec_status Plan(const ec_lut_factor* factor, int64_t m, ec_compute compute, const ec_parallel* parallel, LutMatMulPlan* plan) {
  LutLayout layout;
  const ec_status status = CheckedLutLayout(factor, &layout);
  return status != EC_OK ? status : MakeLutMatMulPlan(*factor, layout, m, compute, parallel, /*needs_scratch=*/false, plan);
}

struct MatrixRows {
  const float* x;
  int64_t k;

  static const float* Row(const void* self, int64_t m, float*) {
    const auto* rows = static_cast<const MatrixRows*>(self);
    return rows->x + m * rows->k;
  }
};

}  // namespace
}  // namespace edgecomp

ec_status ec_lut_matmul_workspace_bytes(const ec_lut_factor* factor, int64_t m, ec_compute compute, const ec_parallel* parallel,
                                        size_t* bytes) {
  if (bytes == nullptr) return EC_ERR_NULL_POINTER;
  edgecomp::LutMatMulPlan plan;
  const ec_status status = edgecomp::Plan(factor, m, compute, parallel, &plan);
  if (status == EC_OK) *bytes = plan.workspace_bytes;
  return status;
}

ec_status ec_lut_matmul(const ec_lut_factor* factor, const float* x, int64_t m, const float* bias, float* y, ec_compute compute,
                        const ec_parallel* parallel, void* workspace, size_t workspace_bytes) {
  using edgecomp::CheckedSize;
  edgecomp::LutMatMulPlan plan;
  ec_status status = edgecomp::Plan(factor, m, compute, parallel, &plan);
  if (status != EC_OK) return status;
  edgecomp::Isa isa;
  status = edgecomp::SelectedIsa(&isa);
  if (status != EC_OK) return status;
  if (m == 0) return EC_OK;
  if (x == nullptr || y == nullptr) return EC_ERR_NULL_POINTER;
  const CheckedSize most = CheckedSize(m) * (factor->n > factor->k ? factor->n : factor->k) * int64_t{sizeof(float)};
  if (!most.fits()) return EC_ERR_OVERFLOW;
  if (workspace == nullptr || workspace_bytes < plan.workspace_bytes) return EC_ERR_WORKSPACE;

  const edgecomp::MatrixRows rows = {x, factor->k};
  RunLutMatMul(edgecomp::LutMatMulKernelsFor(isa), plan, *factor, {&rows, edgecomp::MatrixRows::Row, false}, m,
               {y, factor->n, 1, bias}, parallel, workspace);
  return EC_OK;
}
