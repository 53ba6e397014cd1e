// The format `lut_narrow`: its binder and its operator.
#include "kernels/lut_conv2d/pixel_products.h"
#include "kernels/lut_narrow/lut_narrow.h"
#include "kernels/lut_narrow/tap_sums.h"
#include "ops/call_parts.h"
#include "ops/op_table.h"

namespace edgecomp {
namespace {

const ec_lut_narrow_factor& NarrowOf(const Factor& factor) { return factor.as<ec_lut_narrow_factor>(); }

bool Bind(const OpCall& call, Factor* bound, Message* message) {
  ec_lut_narrow_factor& factor = bound->as<ec_lut_narrow_factor>();
  const int64_t bits = call.integer(lut_narrow::kBits);
  if (bits < 1 || bits > 8) {
    return message->Refuse(EC_ERR_BITS, "%s, got bits=%lld", ec_status_message(EC_ERR_BITS), static_cast<long long>(bits));
  }
  factor.size = sizeof(factor);
  factor.bits = static_cast<int32_t>(bits);
  factor.n = call.integer(lut_narrow::kN);
  factor.k = call.integer(lut_narrow::kK);
  factor.exponent = call.integer(lut_narrow::kExponent);
  factor.codes = call.array(lut_narrow::kCodes).as<uint8_t>();
  factor.codebook = call.array(lut_narrow::kCodebook).as<int8_t>();  // null where it is absent
  factor.row_scale = call.array(lut_narrow::kRowScale).as<uint8_t>();

  LutNarrowLayout layout;
  const ec_status status = MakeLutNarrowLayout(factor, &layout);
  if (status != EC_OK) return message->Refuse(status, "%s; got %s", ec_status_message(status), FactorText(call).text);
  Shape expected[lut_narrow::kArrays];
  expected[lut_narrow::kCodes] = {{layout.code_bytes}, 1};
  expected[lut_narrow::kCodebook] = {{layout.codebook_bytes}, 1};
  expected[lut_narrow::kRowScale] = {{factor.n}, 1};
  for (size_t i = 0; i < lut_narrow::kArrays; ++i) {
    const Tensor& array = call.array(i);
    if (array.absent() ? expected[i].dims[0] == 0 : array.shape == expected[i]) continue;
    const InputSchema& declared = call.schema->inputs[1 + i];
    return message->Refuse(EC_ERR_ARRAY, "%s with %s must be %s %s, got %s %s", declared.name, FactorText(call).text,
                           TypeName(declared.type), ShapeText(expected[i]).text, TypeName(array.type),
                           array.absent() ? "" : ShapeText(array.shape).text);
  }
  return true;
}

size_t ScratchBytes(const Factor&) { return 0; }

ec_status CheckValues(const Factor& factor, void*) { return ec_lut_narrow_check(&NarrowOf(factor)); }

ec_status CheckBounds(const Factor& factor) { return ec_lut_narrow_check_sizes(&NarrowOf(factor)); }

constexpr Binder kBinder = {Bind, ScratchBytes, CheckValues, CheckBounds};

ec_conv2d GeometryOf(const OpCall& call) {
  return ConvolutionOf(call, call.input(lut_narrow_conv2d::kX).shape, lut_narrow_conv2d::kKernelShape);
}

ec_compute ComputeOf(const OpCall& call) { return static_cast<ec_compute>(call.integer(lut_narrow_conv2d::kCompute)); }

bool OutputShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  return ConvolutionShape(call, x, lut_narrow_conv2d::kKernelShape, call.integer(lut_narrow::kN), output, message);
}

bool Prepare(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  if (!CheckBias(call, lut_narrow_conv2d::kBias, call.integer(lut_narrow::kN), message) ||
      !CheckShape(call, lut_narrow_conv2d::kAddend, plan->output, message)) {
    return false;
  }
  const ec_conv2d conv = GeometryOf(call);
  return Planned(ec_lut_narrow_conv2d_workspace_bytes(&NarrowOf(factor), &conv, ComputeOf(call), parallel, &plan->workspace_bytes),
                 message);
}

ec_status Run(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace, void* y) {
  const ec_conv2d conv = GeometryOf(call);
  const ec_epilogue epilogue =
      EpilogueOf(call, lut_narrow_conv2d::kBias, lut_narrow_conv2d::kAddend, lut_narrow_conv2d::kActivation, /*gated=*/0);
  return ec_lut_narrow_conv2d(&NarrowOf(factor), &conv, call.input(lut_narrow_conv2d::kX).as<float>(), &epilogue,
                              static_cast<float*>(y), ComputeOf(call), parallel, workspace, plan.workspace_bytes);
}

}  // namespace

constexpr OpKernel kKernels[] = {{"lut_narrow_conv2d", TapSumsIsaFor}, {"lut_narrow_conv2d_int8", PixelProductsIsaFor}};

const Op kLutNarrowConv2D = {&lut_narrow_conv2d::kSchema, &kBinder, OutputShape, Prepare, Run, kKernels, 2};

}  // namespace edgecomp
