// A format as small as one can be, plain int8 weights, and its matrix product: what tests/test_toy_format.py adds to both runtimes.
#include "ops/op_table.h"

namespace edgecomp {
namespace {

struct ToyFactor {
  int64_t n, k;
  const int8_t* weights;
};

bool Bind(const OpCall& call, Factor* factor, Message* message) {
  auto& toy = factor->as<ToyFactor>();
  toy = {call.integer(toy::kN), call.integer(toy::kK), call.array(toy::kWeights).as<int8_t>()};
  if (call.array(toy::kWeights).shape == Shape{{toy.n, toy.k}, 2}) return true;
  return message->Refuse(EC_ERR_ARRAY, "weights must be int8 [N, K], got %s", ShapeText(call.array(toy::kWeights).shape).text);
}

size_t ScratchBytes(const Factor&) { return 0; }
ec_status Check(const Factor&, void*) { return EC_OK; }
ec_status CheckBounds(const Factor&) { return EC_OK; }
constexpr Binder kToyBinder = {Bind, ScratchBytes, Check, CheckBounds};

bool OutputShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  if (x.rank != 2 || x.dims[1] != call.integer(toy::kK)) return message->Refuse(EC_ERR_TENSOR, "x must be [rows, K]");
  *output = {{x.dims[0], call.integer(toy::kN)}, 2};
  return true;
}

bool Prepare(const OpCall&, const Factor&, const ec_parallel*, OpPlan*, Message*) { return true; }

ec_status Run(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel*, void*, void* output) {
  auto* y = static_cast<float*>(output);
  const auto& toy = factor.as<ToyFactor>();
  const float* x = call.input(toy_matmul::kX).as<float>();
  for (int64_t m = 0; m < plan.output.dims[0]; ++m) {
    for (int64_t n = 0; n < toy.n; ++n) {
      float sum = 0;
      for (int64_t k = 0; k < toy.k; ++k) sum += x[m * toy.k + k] * static_cast<float>(toy.weights[n * toy.k + k]);
      y[m * toy.n + n] = sum;
    }
  }
  return EC_OK;
}

}  // namespace

const Op kToyMatMul = {&toy_matmul::kSchema, &kToyBinder, OutputShape, Prepare, Run};

}  // namespace edgecomp
