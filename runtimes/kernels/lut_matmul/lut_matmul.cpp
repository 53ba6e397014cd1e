// The public functions of lut_matmul.
#include "kernels/lut_matmul/lut_matmul.h"

#include "core/checked_math.h"
#include "kernels/lut_matmul/lut_matmul_driver.h"

namespace edgecomp {
namespace {

struct MatrixRows {
  const float* x;
  int64_t k;

  static const float* Row(const void* self, int64_t m, float*) {
    const auto* rows = static_cast<const MatrixRows*>(self);
    return rows->x + m * rows->k;
  }
};

}  // namespace

ec_status CheckEpilogue(const ec_epilogue* epilogue, int64_t n) {
  if (epilogue == nullptr) return EC_OK;
  if (epilogue->size != sizeof(*epilogue)) return EC_ERR_STRUCT_SIZE;
  if (epilogue->activation < EC_ACTIVATION_NONE || epilogue->activation > EC_ACTIVATION_HARD_SWISH) return EC_ERR_ATTRIBUTE;
  if (epilogue->gated != 0 && epilogue->gated != 1) return EC_ERR_ATTRIBUTE;
  return epilogue->gated == 1 && n % 2 != 0 ? EC_ERR_SHAPE : EC_OK;
}

ec_status PlanMatrixProduct(const ec_lut_factor* factor, int64_t m, const ec_epilogue* epilogue, ec_compute compute,
                            const ec_parallel* parallel, LutMatMulPlan* plan) {
  LutLayout layout;
  ec_status status = CheckedLutLayout(factor, &layout);
  if (status == EC_OK) status = CheckEpilogue(epilogue, factor->n);
  if (status != EC_OK) return status;
  const bool gated = epilogue != nullptr && epilogue->gated == 1;
  return MakeLutMatMulPlan(*factor, layout, m, compute, parallel, /*needs_scratch=*/false, gated, plan);
}

ec_status RunMatrixProduct(const ec_lut_factor& factor, const LutMatMulPlan& plan, const float* x, int64_t m,
                           const ec_epilogue* epilogue, float* y, const ec_parallel* parallel, void* workspace,
                           size_t workspace_bytes) {
  Isa isa;
  const ec_status status = SelectedIsa(&isa);
  if (status != EC_OK) return status;
  if (m == 0) return EC_OK;
  if (x == nullptr || y == nullptr) return EC_ERR_NULL_POINTER;
  const CheckedSize most = CheckedSize(m) * (factor.n > factor.k ? factor.n : factor.k) * int64_t{sizeof(float)};
  if (!most.fits()) return EC_ERR_OVERFLOW;
  if (workspace == nullptr || workspace_bytes < plan.workspace_bytes) return EC_ERR_WORKSPACE;

  const MatrixRows rows = {x, factor.k};
  const ec_epilogue none = {sizeof(none), nullptr, nullptr, EC_ACTIVATION_NONE, 0};
  const ec_epilogue& e = epilogue != nullptr ? *epilogue : none;
  const ProductSink sink = {y, plan.gated ? factor.n / 2 : factor.n, 1, e.bias, e.addend, factor.n, e.activation};
  RunLutMatMul(LutMatMulKernelsFor(isa), plan, factor, {&rows, MatrixRows::Row, false}, m, sink, parallel, workspace);
  return EC_OK;
}

}  // namespace edgecomp

ec_status ec_lut_matmul_workspace_bytes(const ec_lut_factor* factor, int64_t m, const ec_epilogue* epilogue, ec_compute compute,
                                        const ec_parallel* parallel, size_t* bytes) {
  if (bytes == nullptr) return EC_ERR_NULL_POINTER;
  edgecomp::LutMatMulPlan plan;
  const ec_status status = edgecomp::PlanMatrixProduct(factor, m, epilogue, compute, parallel, &plan);
  if (status == EC_OK) *bytes = plan.workspace_bytes;
  return status;
}

ec_status ec_lut_matmul(const ec_lut_factor* factor, const float* x, int64_t m, const ec_epilogue* epilogue, float* y,
                        ec_compute compute, const ec_parallel* parallel, void* workspace, size_t workspace_bytes) {
  edgecomp::LutMatMulPlan plan;
  const ec_status status = edgecomp::PlanMatrixProduct(factor, m, epilogue, compute, parallel, &plan);
  if (status != EC_OK) return status;
  return edgecomp::RunMatrixProduct(*factor, plan, x, m, epilogue, y, parallel, workspace, workspace_bytes);
}
