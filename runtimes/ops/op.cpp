#include "ops/op.h"

#include <cstdint>

namespace edgecomp {
namespace {

bool CheckType(const OpCall& call, size_t input, ec_status status, Message* message) {
  const InputSchema& declared = call.schema->inputs[input];
  const Tensor& got = call.input(input);
  if (got.absent() && declared.optional) return true;
  if (got.type == declared.type) {
    // To kernels a null pointer is an input that was not given.
    if (got.data != nullptr || got.shape.Elements() == 0) return true;
    return message->Refuse(EC_ERR_NULL_POINTER, "%s must have memory, got none for the shape %s", declared.name,
                           ShapeText(got.shape).text);
  }
  return message->Refuse(status, "%s must be %s %s, got %s %s", declared.name, TypeName(declared.type), declared.shape,
                         TypeName(got.type), got.absent() ? "" : ShapeText(got.shape).text);
}

bool CheckArrayTypes(const OpCall& call, Message* message) {
  for (size_t i = 1; i <= call.schema->array_count; ++i) {
    if (!CheckType(call, i, EC_ERR_ARRAY, message)) return false;
  }
  return true;
}

bool CheckOtherTypes(const OpCall& call, Message* message) {
  if (!CheckType(call, 0, EC_ERR_TENSOR, message)) return false;
  for (size_t i = 1 + call.schema->array_count; i < call.schema->input_count; ++i) {
    if (!CheckType(call, i, EC_ERR_TENSOR, message)) return false;
  }
  return true;
}

bool RefuseWithInput(const OpCall& call, ec_status status, Message* message) {
  return message->Refuse(status, "%s; got %s of shape %s%s%s", ec_status_message(status), call.schema->inputs[0].name,
                         ShapeText(call.input(0).shape).text, call.schema->factor_attribute_count > 0 ? ", " : "",
                         FactorText(call).text);
}

uintptr_t BytesOf(ec_type type, const Shape& shape) { return ElementBytes(type) * static_cast<uintptr_t>(shape.Elements()); }

// Kernels read their inputs, whose values were checked, while they write: a damaged memory plan may lay the output over one of
// them.
bool CheckOverlap(const OpCall& call, const Shape& output, const void* y, Message* message) {
  const auto from = reinterpret_cast<uintptr_t>(y);
  const uintptr_t end = from + BytesOf(call.schema->output_type, output);
  for (size_t i = 0; i < call.schema->input_count; ++i) {
    const Tensor& input = call.input(i);
    if (input.absent()) continue;
    const uintptr_t start = reinterpret_cast<uintptr_t>(input.data), bytes = BytesOf(input.type, input.shape);
    if (bytes == 0 || end <= start || start + bytes <= from) continue;
    if (i == call.schema->in_place && input.data == y && input.shape == output) continue;
    return message->Refuse(EC_ERR_TENSOR, "the output must have memory of its own, but lies over %s", call.schema->inputs[i].name);
  }
  return true;
}

}  // namespace

bool BindFactor(const Op& op, const OpCall& call, Host* host, Factor* factor, Message* message) {
  if (op.binder == nullptr) return true;
  if (!CheckArrayTypes(call, message) || !op.binder->bind(call, factor, message)) return false;
  const bool known = host->WasChecked(*factor);
  ec_status status;
  if (known) {
    status = op.binder->check_bounds(*factor);
  } else {
    const size_t bytes = op.binder->scratch_bytes(*factor);
    void* scratch = bytes == 0 ? nullptr : host->Temporary(bytes);
    if (bytes != 0 && scratch == nullptr) return false;
    status = op.binder->check_values(*factor, scratch);
  }
  if (status != EC_OK) return message->Refuse(status, "%s; got %s", ec_status_message(status), FactorText(call).text);
  if (!known) host->RememberChecked(*factor);
  return true;
}

bool RunOp(const Op& op, const OpCall& call, const Factor* bound, Host* host, Message* message) {
  Factor own = {};  // without odd bytes, which a host may compare
  if (bound == nullptr) {
    if (!BindFactor(op, call, host, &own, message)) return false;
    bound = &own;
  }
  if (!CheckOtherTypes(call, message)) return false;
  OpPlan plan;
  const ec_parallel* parallel = host->parallel();
  if (!op.output_shape(call, call.input(0).shape, &plan.output, message)) return false;
  if (!op.prepare(call, *bound, parallel, &plan, message)) {
    return message->text[0] != '\0' ? false : RefuseWithInput(call, message->status, message);
  }
  void* y = host->Output(plan.output);
  if (y == nullptr && plan.output.Elements() != 0) return false;
  if (plan.output.Elements() != 0 && !CheckOverlap(call, plan.output, y, message)) return false;
  void* workspace = plan.workspace_bytes == 0 ? nullptr : host->Temporary(plan.workspace_bytes);
  if (plan.workspace_bytes != 0 && workspace == nullptr) return false;
  const ec_status status = op.run(call, *bound, plan, parallel, workspace, y);
  return status == EC_OK || RefuseWithInput(call, status, message);
}

}  // namespace edgecomp
