// The operators of the format `lut`.
#include "kernels/lut_conv2d/lut_conv2d.h"
#include "ops/lut_binding.h"
#include "ops/op_table.h"

namespace edgecomp {

namespace {

ec_compute ComputeOf(const OpCall& call, size_t attribute) { return static_cast<ec_compute>(call.integer(attribute)); }

bool CheckShape(const OpCall& call, size_t input, const Shape& expected, Message* message) {
  const Tensor& got = call.input(input);
  if (got.absent() || got.shape == expected) return true;
  return message->Refuse(EC_ERR_TENSOR, "%s must be %s %s or absent, got %s", call.schema->inputs[input].name, TypeName(got.type),
                         ShapeText(expected).text, ShapeText(got.shape).text);
}

bool CheckBias(const OpCall& call, size_t input, Message* message) {
  return CheckShape(call, input, {{call.integer(lut::kN)}, 1}, message);
}

bool Planned(ec_status status, Message* message) {
  message->status = status;
  return status == EC_OK;
}

ec_epilogue EpilogueOf(const OpCall& call, size_t bias, size_t addend, size_t activation, int64_t gated) {
  return {sizeof(ec_epilogue), call.input(bias).as<float>(), call.input(addend).as<float>(),
          static_cast<ec_activation>(call.integer(activation)), static_cast<int32_t>(gated)};
}

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
  if (!CheckBias(call, lut_matmul::kBias, message) || !CheckShape(call, lut_matmul::kAddend, product, message)) return false;
  auto& planned = plan->kernel.as<PlannedMatMul>();
  planned.rows = x.Elements(0, x.rank - 1);
  planned.epilogue =
      EpilogueOf(call, lut_matmul::kBias, lut_matmul::kAddend, lut_matmul::kActivation, call.integer(lut_matmul::kGated));
  const ec_status status = PlanMatrixProduct(&LutOf(factor), planned.rows, &planned.epilogue, ComputeOf(call, lut_matmul::kCompute),
                                             parallel, &planned.kernel);
  plan->workspace_bytes = planned.kernel.workspace_bytes;
  return Planned(status, message);
}

ec_status RunMatMul(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                    float* y) {
  const auto& planned = plan.kernel.as<PlannedMatMul>();
  return RunMatrixProduct(LutOf(factor), planned.kernel, call.input(lut_matmul::kX).as<float>(), planned.rows, &planned.epilogue, y,
                          parallel, workspace, plan.workspace_bytes);
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

ec_status RunGather(const OpCall& call, const Factor& factor, const OpPlan&, const ec_parallel* parallel, void*, float* y) {
  const Tensor& indices = call.input(lut_gather::kIndices);
  return ec_lut_gather(&LutOf(factor), indices.as<int64_t>(), indices.shape.Elements(), y, parallel);
}

// The geometry for an x [batch, channels, height, width].
ec_conv2d GeometryOf(const OpCall& call, const Shape& x) {
  const auto ints = [&call](size_t attribute) { return call.attributes[attribute].ints; };
  const int64_t *kernel = ints(lut_conv2d::kKernelShape), *strides = ints(lut_conv2d::kStrides), *pads = ints(lut_conv2d::kPads),
                *dilations = ints(lut_conv2d::kDilations);
  return {
      sizeof(ec_conv2d), x.dims[0],    x.dims[1],    x.dims[2], x.dims[3], kernel[0], kernel[1], strides[0],
      strides[1],        dilations[0], dilations[1], pads[0],   pads[1],   pads[2],   pads[3],   call.integer(lut_conv2d::kGroup)};
}

bool Conv2dShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  if (x.rank != 4) {
    return message->Refuse(EC_ERR_TENSOR, "x must be float32 [batch, channels, height, width], got %s", ShapeText(x).text);
  }
  ec_conv2d conv = GeometryOf(call, x);
  if (conv.batch < 0) conv.batch = 1;  // no part in the output's size
  if (conv.in_channels < 0) conv.in_channels = 1;
  *output = {{x.dims[0], call.integer(lut::kN), 0, 0}, 4};
  const ec_status status = ec_conv2d_output_size(&conv, &output->dims[2], &output->dims[3]);
  if (status == EC_OK) return true;
  return message->Refuse(status, "%s; got x of shape %s, %s", ec_status_message(status), ShapeText(x).text, FactorText(call).text);
}

struct PlannedConv2d {
  Conv2dPlan kernel;
  ec_epilogue epilogue;
};

bool PrepareConv2d(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  if (!CheckBias(call, lut_conv2d::kBias, message) || !CheckShape(call, lut_conv2d::kAddend, plan->output, message)) return false;
  auto& planned = plan->kernel.as<PlannedConv2d>();
  planned.epilogue = EpilogueOf(call, lut_conv2d::kBias, lut_conv2d::kAddend, lut_conv2d::kActivation, /*gated=*/0);
  const ec_conv2d conv = GeometryOf(call, call.input(lut_conv2d::kX).shape);
  const ec_status status =
      PlanConv2d(&LutOf(factor), &conv, &planned.epilogue, ComputeOf(call, lut_conv2d::kCompute), parallel, &planned.kernel);
  plan->workspace_bytes = planned.kernel.workspace_bytes;
  return Planned(status, message);
}

ec_status RunConv(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                  float* y) {
  const auto& planned = plan.kernel.as<PlannedConv2d>();
  return RunConv2d(LutOf(factor), planned.kernel, call.input(lut_conv2d::kX).as<float>(), &planned.epilogue, y, parallel, workspace,
                   plan.workspace_bytes);
}

}  // namespace

const Op kLutMatMul = {&lut_matmul::kSchema, &kLutBinder, MatMulShape, PrepareMatMul, RunMatMul};
const Op kLutGather = {&lut_gather::kSchema, &kLutBinder, GatherShape, PrepareGather, RunGather};
const Op kLutConv2D = {&lut_conv2d::kSchema, &kLutBinder, Conv2dShape, PrepareConv2d, RunConv};

}  // namespace edgecomp
