#include "adapters/executorch/call_host.h"

#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/core/exec_aten/util/tensor_dimension_limit.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

namespace edgecomp::et {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using EtTensor = executorch::aten::Tensor;

static_assert(kMaxRank >= executorch::runtime::kTensorDimensionLimit);

ec_type TypeOf(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return EC_TYPE_FLOAT32;
    case ScalarType::Half:
      return EC_TYPE_FLOAT16;
    case ScalarType::Byte:
      return EC_TYPE_UINT8;
    case ScalarType::Char:
      return EC_TYPE_INT8;
    case ScalarType::UInt16:
      return EC_TYPE_UINT16;
    case ScalarType::Int:
      return EC_TYPE_INT32;
    case ScalarType::Long:
      return EC_TYPE_INT64;
    default:
      return EC_TYPE_OTHER;
  }
}

Shape ShapeOf(const EtTensor& tensor) {
  Shape shape;
  shape.rank = static_cast<size_t>(tensor.dim());
  for (size_t i = 0; i < shape.rank; ++i) shape.dims[i] = tensor.sizes()[i];
  return shape;
}

bool IsContiguous(const EtTensor& tensor) {
  const auto order = tensor.dim_order();
  return executorch::runtime::is_contiguous_dim_order(order.data(), order.size());
}

bool ReadTensor(const EValue& value, const InputSchema& declared, Tensor* tensor, Message* message) {
  if (value.isNone()) return true;
  if (!value.isTensor()) return message->Refuse(EC_ERR_TENSOR, "%s must be a tensor", declared.name);
  const EtTensor& found = value.toTensor();
  tensor->type = TypeOf(found.scalar_type());
  tensor->data = found.const_data_ptr();
  tensor->shape = ShapeOf(found);
  if (IsContiguous(found)) return true;
  return message->Refuse(EC_ERR_TENSOR, "%s must lie in row-major order, got another order of its dimensions, shape %s",
                         declared.name, ShapeText(tensor->shape).text);
}

bool ReadInts(const EValue& value, const AttributeSchema& declared, AttributeValue* read, Message* message) {
  if (value.isIntList()) {
    const auto list = value.payload.copyable_union.as_int_list_ptr->tryGet();
    if (list.ok() && list->size() == declared.count) {
      for (size_t i = 0; i < declared.count; ++i) read->ints[i] = (*list)[i];
      return true;
    }
  }
  return message->Refuse(EC_ERR_ATTRIBUTE, "%s must be a list of %zu integers", declared.name, declared.count);
}

bool ReadAttribute(const EValue& value, const AttributeSchema& declared, AttributeValue* read, Message* message) {
  switch (declared.kind) {
    case AttributeKind::kInt:
      if (!value.isInt()) return message->Refuse(EC_ERR_ATTRIBUTE, "%s must be an integer", declared.name);
      read->ints[0] = value.toInt();
      return true;
    case AttributeKind::kInts:
      return ReadInts(value, declared, read, message);
    case AttributeKind::kFloat:
      if (!value.isDouble()) return message->Refuse(EC_ERR_ATTRIBUTE, "%s must be a float", declared.name);
      read->real = static_cast<float>(value.toDouble());
      return true;
    case AttributeKind::kChoice:
      break;
  }
  if (!value.isString()) return message->Refuse(EC_ERR_ATTRIBUTE, "%s must be a string", declared.name);
  const auto text = value.toString();
  return ReadChoice(declared, text.data(), text.size(), read, message);
}

// Reads the arguments before the output, which of the variant in place is the first argument again.
bool ReadArguments(const OpSchema& schema, Stack stack, Tensor* tensors, AttributeValue* attributes, Message* message) {
  const size_t count = schema.input_count + schema.attribute_count + 1;
  if (stack.size() < count) return message->Refuse(EC_ERR_TENSOR, "a call must have %zu arguments, got %zu", count, stack.size());
  for (size_t i = 0; i < schema.input_count; ++i) {
    if (!ReadTensor(*stack[i], schema.inputs[i], &tensors[i], message)) return false;
  }
  for (size_t i = 0; i < schema.attribute_count; ++i) {
    if (!ReadAttribute(*stack[schema.input_count + i], schema.attributes[i], &attributes[i], message)) return false;
  }
  return true;
}

class CallHost final : public Host {
 public:
  CallHost(Context* context, ec_type type, const EValue& output, Message* message)
      : context_(context), type_(type), output_(output), message_(message), parallel_(PoolThreads()) {}

  const ec_parallel* parallel() override { return parallel_.threads > 1 ? &parallel_ : nullptr; }
  bool WasChecked(const Factor& factor) override { return et::WasChecked(factor); }
  void RememberChecked(const Factor& factor) override { et::RememberChecked(factor); }

  void* Output(const Shape& shape) override {
    if (!output_.isTensor() || TypeOf(output_.toTensor().scalar_type()) != type_ || !IsContiguous(output_.toTensor())) {
      message_->Refuse(EC_ERR_TENSOR, "the output must be a %s tensor in row-major order", TypeName(type_));
      return nullptr;
    }
    EtTensor output = output_.toTensor();
    SizesType sizes[kMaxRank];
    bool fit = true;
    for (size_t i = 0; i < shape.rank; ++i) {
      sizes[i] = static_cast<SizesType>(shape.dims[i]);
      fit = fit && sizes[i] == shape.dims[i];
    }
    if (!fit || executorch::runtime::resize_tensor(output, {sizes, shape.rank}) != Error::Ok) {
      message_->Refuse(EC_ERR_TENSOR, "the output needs shape %s, and memory is planned for %s: export with larger sizes",
                       ShapeText(shape).text, ShapeText(ShapeOf(output)).text);
      return nullptr;
    }
    void* data = output.mutable_data_ptr();
    if (data == nullptr && shape.Elements() > 0) message_->Refuse(EC_ERR_NULL_POINTER, "the output must have memory");
    return data;
  }

  void* Temporary(size_t bytes) override {
    const auto allocated = context_->allocate_temp(bytes);
    if (allocated.ok()) return *allocated;
    message_->Refuse(EC_ERR_MEMORY, "no %zu bytes of temporary memory are to be had", bytes);
    return nullptr;
  }

 private:
  Context* context_;
  ec_type type_;
  const EValue& output_;
  Message* message_;
  ec_parallel parallel_;
};

Error ErrorOf(ec_status status) {
  if (status == EC_ERR_MEMORY) return Error::MemoryAllocationFailed;
  return status == EC_ERR_ATTRIBUTE ? Error::InvalidType : Error::InvalidArgument;
}

}  // namespace

void RunCall(const Op& op, bool in_place, Context& context, Stack stack) {
  Message message;
  Tensor tensors[kMaxInputs];
  AttributeValue attributes[kMaxAttributes];
  OpCall call = {op.schema, {}, attributes};
  for (size_t i = 0; i < op.schema->input_count; ++i) call.inputs[i] = &tensors[i];
  if (ReadArguments(*op.schema, stack, tensors, attributes, &message)) {
    const size_t output = in_place ? 0 : op.schema->input_count + op.schema->attribute_count;
    CallHost host(&context, op.schema->output_type, *stack[output], &message);
    if (RunOp(op, call, nullptr, &host, &message)) return;
  }
  ET_LOG(Error, "%s: %s", in_place ? op.schema->executorch_in_place_name : op.schema->executorch_name, message.text);
  context.fail(ErrorOf(message.status));
}

}  // namespace edgecomp::et
