// Operators by name, for callers of the C interface.
#include <cstdio>
#include <cstring>

#include "ops/op.h"

namespace edgecomp {
namespace {

class CallerHost final : public Host {
 public:
  CallerHost(const ec_op_call& call, Message* message) : call_(call), message_(message) {}
  const ec_parallel* parallel() override { return call_.parallel; }
  void* Output(const Shape& shape) override {
    return Given(call_.output(call_.context, shape.dims, static_cast<int32_t>(shape.rank)));
  }
  void* Temporary(size_t bytes) override { return Given(call_.temporary(call_.context, bytes)); }

 private:
  template <class T>
  T* Given(T* memory) {
    if (memory == nullptr) message_->Refuse(EC_ERR_MEMORY, "%s", ec_status_message(EC_ERR_MEMORY));
    return memory;
  }

  const ec_op_call& call_;
  Message* message_;
};

const Op* FindOp(const char* name) {
  for (size_t i = 0; i < AllOps().count; ++i) {
    if (std::strcmp(AllOps().ops[i]->schema->name, name) == 0) return AllOps().ops[i];
  }
  return nullptr;
}

size_t IntegersOf(const AttributeSchema& attribute) { return attribute.kind == AttributeKind::kInts ? attribute.count : 1; }

bool ReadTensor(const ec_tensor& given, const InputSchema& declared, Tensor* tensor, Message* message) {
  tensor->type = given.type;
  if (tensor->absent()) return true;
  if (given.rank < 0 || given.rank > EC_MAX_RANK || (given.rank > 0 && given.dims == nullptr)) {
    return message->Refuse(EC_ERR_TENSOR, "%s must have at most %d dimensions, got %d", declared.name, EC_MAX_RANK, given.rank);
  }
  tensor->data = given.data;
  tensor->shape.rank = static_cast<size_t>(given.rank);
  // Of dimensions other than 0, so that no product of some of them overflows.
  int64_t elements = 1;
  for (size_t i = 0; i < tensor->shape.rank; ++i) {
    const int64_t dim = given.dims[i];
    tensor->shape.dims[i] = dim;
    if (dim < 0 || dim > INT64_MAX / elements) {
      return message->Refuse(EC_ERR_TENSOR, "%s must have dimensions of 0 or more whose product is an int64, got %s", declared.name,
                             ShapeText(tensor->shape).text);
    }
    elements *= dim > 0 ? dim : 1;
  }
  return true;
}

bool ReadAttributes(const OpSchema& schema, const ec_op_call& call, AttributeValue* values, Message* message) {
  size_t wanted = 0;
  for (size_t i = 0; i < schema.attribute_count; ++i) wanted += IntegersOf(schema.attributes[i]);
  if (call.attribute_count != wanted) {
    return message->Refuse(EC_ERR_ATTRIBUTE, "%s must have %zu integers as attributes, got %zu", schema.name, wanted,
                           call.attribute_count);
  }
  const int64_t* next = call.attributes;
  for (size_t i = 0; i < schema.attribute_count; ++i) {
    const AttributeSchema& declared = schema.attributes[i];
    for (size_t j = 0; j < IntegersOf(declared); ++j) values[i].ints[j] = *next++;
    const int64_t value = values[i].ints[0];
    if (declared.kind == AttributeKind::kFloat) {
      const auto bits = static_cast<uint32_t>(value);
      std::memcpy(&values[i].real, &bits, sizeof(bits));
    }
    if (declared.kind == AttributeKind::kChoice && (value < 0 || value >= static_cast<int64_t>(declared.count))) {
      return message->Refuse(EC_ERR_ATTRIBUTE, "the attribute %s must be in [0, %zu), got %lld", declared.name, declared.count,
                             static_cast<long long>(value));
    }
  }
  return true;
}

bool Run(const ec_op_call& given, Message* message) {
  const Op* op = FindOp(given.op);
  if (op == nullptr) return message->Refuse(EC_ERR_OPERATOR, "%s, got '%.64s'", ec_status_message(EC_ERR_OPERATOR), given.op);
  const OpSchema& schema = *op->schema;
  if (given.input_count != schema.input_count) {
    return message->Refuse(EC_ERR_TENSOR, "%s must have %zu inputs, got %zu", schema.name, schema.input_count, given.input_count);
  }
  Tensor tensors[kMaxInputs];
  AttributeValue attributes[kMaxAttributes] = {};
  OpCall call = {&schema, {}, attributes};
  for (size_t i = 0; i < schema.input_count; ++i) {
    call.inputs[i] = &tensors[i];
    if (!ReadTensor(given.inputs[i], schema.inputs[i], &tensors[i], message)) return false;
  }
  if (!ReadAttributes(schema, given, attributes, message)) return false;
  CallerHost host(given, message);
  return RunOp(*op, call, nullptr, &host, message);
}

}  // namespace
}  // namespace edgecomp

ec_status ec_op_run(const ec_op_call* call) {
  if (call == nullptr) return EC_ERR_NULL_POINTER;
  if (call->size != sizeof(*call)) return EC_ERR_STRUCT_SIZE;
  if (call->op == nullptr || call->inputs == nullptr || call->attributes == nullptr || call->output == nullptr ||
      call->temporary == nullptr) {
    return EC_ERR_NULL_POINTER;
  }
  edgecomp::Message message;
  if (edgecomp::Run(*call, &message)) return EC_OK;
  if (call->message != nullptr && call->message_bytes > 0) std::snprintf(call->message, call->message_bytes, "%s", message.text);
  return message.status;
}
