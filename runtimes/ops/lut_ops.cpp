// The operators of the format `lut`.
#include "kernels/lut_conv2d/lut_conv2d.h"
#include "ops/call_parts.h"
#include "ops/lut_binding.h"
#include "ops/op_table.h"

namespace edgecomp {

namespace {

ec_compute ComputeOf(const OpCall& call, size_t attribute) { return static_cast<ec_compute>(call.integer(attribute)); }

// What a call is planned to, with the arguments that the run takes again.
struct PlannedMatMul {
  LutMatMulPlan kernel;
  ec_epilogue epilogue;
  int64_t rows;
};

bool MatMulShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  const int64_t k = call.integer(lut::kK), n = call.integer(lut::kN), gated = call.integer(lut_matmul::kGated);
  if (x.rank < 1 || (x.dims[x.rank - 1] >= 0 && x.dims[x.rank - 1] != k)) {
    return message->Refuse(EC_ERR_TENSOR, "x must be float32 [..., %lld], got %s", static_cast<long long>(k), ShapeText(x).text);
  }
  if (gated != 0 && (gated != 1 || n % 2 != 0)) {
    return message->Refuse(EC_ERR_ATTRIBUTE, "gated must be 0, or 1 with an even N, got %lld with N=%lld",
                           static_cast<long long>(gated), static_cast<long long>(n));
  }
  *output = x;
  output->dims[x.rank - 1] = gated == 1 ? n / 2 : n;
  return true;
}

bool PrepareMatMul(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  const Shape& x = call.input(lut_matmul::kX).shape;
  Shape product = x;
  product.dims[x.rank - 1] = call.integer(lut::kN);
  if (!CheckBias(call, lut_matmul::kBias, call.integer(lut::kN), message) ||
      !CheckShape(call, lut_matmul::kAddend, product, message))
    return false;
  auto& planned = plan->kernel.as<PlannedMatMul>();
  planned.rows = x.Elements(0, x.rank - 1);
  planned.epilogue =
      EpilogueOf(call, lut_matmul::kBias, lut_matmul::kAddend, lut_matmul::kActivation, call.integer(lut_matmul::kGated));
  const ec_status status = PlanMatrixProduct(&LutOf(factor), planned.rows, &planned.epilogue, ComputeOf(call, lut_matmul::kCompute),
                                             parallel, &planned.kernel);
  if (!Planned(status, message)) return false;
  plan->workspace_bytes = planned.kernel.workspace_bytes;
  return true;
}

ec_status RunMatMul(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                    void* y) {
  const auto& planned = plan.kernel.as<PlannedMatMul>();
  return RunMatrixProduct(LutOf(factor), planned.kernel, call.input(lut_matmul::kX).as<float>(), planned.rows, &planned.epilogue,
                          static_cast<float*>(y), parallel, workspace, plan.workspace_bytes);
}

bool GatherShape(const OpCall& call, const Shape& indices, Shape* output, Message* message) {
  if (indices.rank == kMaxRank) {
    return message->Refuse(EC_ERR_TENSOR, "indices must have fewer than %zu dimensions, got %zu", kMaxRank, indices.rank);
  }
  *output = indices;
  output->dims[output->rank++] = call.integer(lut::kK);
  return true;
}

bool PrepareGather(const OpCall&, const Factor&, const ec_parallel*, OpPlan*, Message*) { return true; }

ec_status RunGather(const OpCall& call, const Factor& factor, const OpPlan&, const ec_parallel* parallel, void*, void* y) {
  const Tensor& indices = call.input(lut_gather::kIndices);
  return ec_lut_gather(&LutOf(factor), indices.as<int64_t>(), indices.shape.Elements(), static_cast<float*>(y), parallel);
}

ec_conv2d GeometryOf(const OpCall& call, const Shape& x) { return ConvolutionOf(call, x, lut_conv2d::kKernelShape); }

bool Conv2dShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  return ConvolutionShape(call, x, lut_conv2d::kKernelShape, call.integer(lut::kN), output, message);
}

struct PlannedConv2d {
  Conv2dPlan kernel;
  ec_epilogue epilogue;
};

bool PrepareConv2d(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  if (!CheckBias(call, lut_conv2d::kBias, call.integer(lut::kN), message) ||
      !CheckShape(call, lut_conv2d::kAddend, plan->output, message))
    return false;
  auto& planned = plan->kernel.as<PlannedConv2d>();
  planned.epilogue = EpilogueOf(call, lut_conv2d::kBias, lut_conv2d::kAddend, lut_conv2d::kActivation, /*gated=*/0);
  const ec_conv2d conv = GeometryOf(call, call.input(lut_conv2d::kX).shape);
  const ec_status status =
      PlanConv2d(&LutOf(factor), &conv, &planned.epilogue, ComputeOf(call, lut_conv2d::kCompute), parallel, &planned.kernel);
  if (!Planned(status, message)) return false;
  plan->workspace_bytes = planned.kernel.workspace_bytes;
  return true;
}

ec_status RunConv(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                  void* y) {
  const auto& planned = plan.kernel.as<PlannedConv2d>();
  return RunConv2d(LutOf(factor), planned.kernel, call.input(lut_conv2d::kX).as<float>(), &planned.epilogue, static_cast<float*>(y),
                   parallel, workspace, plan.workspace_bytes);
}

}  // namespace

constexpr OpKernel kMatMulKernels[] = {{"lut_matmul", LutMatMulIsaFor}};
// In float a product of pixels by the factor where there is one group of channels.
constexpr OpKernel kConv2dKernels[] = {{"lut_conv2d", PixelProductsIsaFor},
                                       {"lut_conv2d_float", LutMatMulIsaFor},
                                       {"lut_conv2d_float_grouped", [](Isa) { return Isa::kRef; }}};

const Op kLutMatMul = {&lut_matmul::kSchema, &kLutBinder, MatMulShape, PrepareMatMul, RunMatMul, kMatMulKernels, 1};
const Op kLutGather = {&lut_gather::kSchema, &kLutBinder, GatherShape, PrepareGather, RunGather};
const Op kLutConv2D = {&lut_conv2d::kSchema, &kLutBinder, Conv2dShape, PrepareConv2d, RunConv, kConv2dKernels, 3};

}  // namespace edgecomp
