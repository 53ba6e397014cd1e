// The operators of the format `lut`.
#include "ops/lut_binding.h"
#include "ops/op_table.h"

namespace edgecomp {

namespace {

ec_compute ComputeOf(const OpCall& call, size_t attribute) { return static_cast<ec_compute>(call.integer(attribute)); }

// The optional bias [N]; false where it has another shape.
bool ReadBias(const OpCall& call, size_t input, Message* message) {
  const Tensor& bias = call.input(input);
  if (bias.absent() || (bias.shape.rank == 1 && bias.shape.dims[0] == call.integer(lut::kN))) return true;
  return message->Refuse(EC_ERR_TENSOR, "bias must be float32 [%lld] or absent, got %s",
                         static_cast<long long>(call.integer(lut::kN)), ShapeText(bias.shape).text);
}

bool Planned(ec_status status, Message* message) {
  message->status = status;
  return status == EC_OK;
}

bool MatMulShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  const int64_t k = call.integer(lut::kK);
  if (x.rank < 1 || (x.dims[x.rank - 1] >= 0 && x.dims[x.rank - 1] != k)) {
    return message->Refuse(EC_ERR_TENSOR, "x must be float32 [..., %lld], got %s", static_cast<long long>(k), ShapeText(x).text);
  }
  *output = x;
  output->dims[x.rank - 1] = call.integer(lut::kN);
  return true;
}

int64_t RowsOf(const OpCall& call) {
  const Shape& x = call.input(lut_matmul::kX).shape;
  return x.Elements(0, x.rank - 1);
}

bool PrepareMatMul(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  if (!ReadBias(call, lut_matmul::kBias, message)) return false;
  return Planned(ec_lut_matmul_workspace_bytes(&LutOf(factor), RowsOf(call), ComputeOf(call, lut_matmul::kCompute), parallel,
                                               &plan->workspace_bytes),
                 message);
}

ec_status RunMatMul(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                    float* y) {
  return ec_lut_matmul(&LutOf(factor), call.input(lut_matmul::kX).as<float>(), RowsOf(call),
                       call.input(lut_matmul::kBias).as<float>(), y, ComputeOf(call, lut_matmul::kCompute), parallel, workspace,
                       plan.workspace_bytes);
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

bool PrepareConv2d(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  if (!ReadBias(call, lut_conv2d::kBias, message)) return false;
  const ec_conv2d conv = GeometryOf(call, call.input(lut_conv2d::kX).shape);
  return Planned(
      ec_lut_conv2d_workspace_bytes(&LutOf(factor), &conv, ComputeOf(call, lut_conv2d::kCompute), parallel, &plan->workspace_bytes),
      message);
}

ec_status RunConv2d(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                    float* y) {
  const ec_conv2d conv = GeometryOf(call, call.input(lut_conv2d::kX).shape);
  return ec_lut_conv2d(&LutOf(factor), &conv, call.input(lut_conv2d::kX).as<float>(), call.input(lut_conv2d::kBias).as<float>(), y,
                       ComputeOf(call, lut_conv2d::kCompute), parallel, workspace, plan.workspace_bytes);
}

}  // namespace

const Op kLutMatMul = {&lut_matmul::kSchema, &kLutBinder, MatMulShape, PrepareMatMul, RunMatMul};
const Op kLutGather = {&lut_gather::kSchema, &kLutBinder, GatherShape, PrepareGather, RunGather};
const Op kLutConv2D = {&lut_conv2d::kSchema, &kLutBinder, Conv2dShape, PrepareConv2d, RunConv2d};

}  // namespace edgecomp
