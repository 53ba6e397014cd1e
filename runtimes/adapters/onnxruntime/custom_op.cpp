#include "adapters/onnxruntime/custom_op.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "adapters/onnxruntime/session_host.h"

namespace edgecomp::ort {
namespace {

const OpDescription& Description(const OrtCustomOp* op) { return *static_cast<const OpDescription*>(op); }
const OpSchema& SchemaOf(const OrtCustomOp* op) { return *Description(op).op->schema; }

// A node of a session.
class Kernel {
 public:
  Kernel(const Op& op, Api api) : op_(op), api_(api) {}
  ~Kernel() {
    if (allocator_ != nullptr) ReleaseAllocator::Call(api_, allocator_);
  }
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  OrtStatus* Initialize(const OrtKernelInfo* info);
  OrtStatus* Compute(OrtKernelContext* context) const;

 private:
  OrtStatus* ReadAttribute(const OrtKernelInfo* info, const AttributeSchema& attribute, AttributeValue* value) const;
  OrtStatus* ReadConstants(const OrtKernelInfo* info);
  // "LutMatMul node 'name': ..."; the host's own error where there is one.
  OrtStatus* Fail(SessionHost* host, const Message& message) const;

  const Op& op_;
  Api api_;
  OrtAllocator* allocator_ = nullptr;
  char node_[128] = "";
  AttributeValue attributes_[kMaxAttributes] = {};
  // Inputs that a session holds are read once: the initialisers themselves, mapped from the model's file.
  Tensor constants_[kMaxInputs];
  bool is_constant_[kMaxInputs] = {};
  bool is_bound_ = false;  // factor_ is of constants, and checked
  Factor factor_ = {};
};

OrtStatus* Kernel::Fail(SessionHost* host, const Message& message) const {
  OrtStatus* error = host != nullptr ? host->TakeError() : nullptr;
  if (error != nullptr) return error;
  char text[sizeof(message.text) + 256];
  std::snprintf(text, sizeof(text), "%s node '%s': %s", op_.schema->onnx_name, node_, message.text);
  return CreateStatus::Call(api_, kInvalidArgument, text);
}

OrtStatus* Kernel::Initialize(const OrtKernelInfo* info) {
  size_t size = sizeof(node_);
  OrtStatus* too_long = GetNodeName::Call(api_, info, node_, &size);
  if (too_long != nullptr) {
    ReleaseStatus::Call(api_, too_long);
    std::strcpy(node_, "(a long name)");
  }
  EC_ORT_RETURN_IF_ERROR(GetAllocator::Call(api_, info, kDefaultMemory, &allocator_));
  for (size_t i = 0; i < op_.schema->attribute_count; ++i) {
    EC_ORT_RETURN_IF_ERROR(ReadAttribute(info, op_.schema->attributes[i], &attributes_[i]));
  }
  return ReadConstants(info);
}

OrtStatus* Kernel::ReadAttribute(const OrtKernelInfo* info, const AttributeSchema& attribute, AttributeValue* value) const {
  Message message;
  if (attribute.kind == AttributeKind::kInt) {
    OrtStatus* status = GetIntAttribute::Call(api_, info, attribute.name, &value->ints[0]);
    if (status == nullptr) return nullptr;
    ReleaseStatus::Call(api_, status);
    message.Refuse(EC_ERR_ATTRIBUTE, "the attribute %s must be an integer", attribute.name);
    return Fail(nullptr, message);
  }
  if (attribute.kind == AttributeKind::kFloat) {
    OrtStatus* status = GetFloatAttribute::Call(api_, info, attribute.name, &value->real);
    if (status == nullptr) return nullptr;
    ReleaseStatus::Call(api_, status);
    message.Refuse(EC_ERR_ATTRIBUTE, "the attribute %s must be a float", attribute.name);
    return Fail(nullptr, message);
  }
  if (attribute.kind == AttributeKind::kInts) {
    size_t found = attribute.count;
    OrtStatus* status = GetIntsAttribute::Call(api_, info, attribute.name, value->ints, &found);
    if (status == nullptr && found == attribute.count) return nullptr;
    if (status != nullptr) ReleaseStatus::Call(api_, status);
    message.Refuse(EC_ERR_ATTRIBUTE, "the attribute %s must hold %zu integers, got %zu", attribute.name, attribute.count, found);
    return Fail(nullptr, message);
  }
  char text[64] = "";
  size_t size = sizeof(text);
  OrtStatus* status = GetStringAttribute::Call(api_, info, attribute.name, text, &size);
  if (status != nullptr) {
    ReleaseStatus::Call(api_, status);
    std::strcpy(text, "no or another string");
  }
  return ReadChoice(attribute, text, std::strlen(text), value, &message) ? nullptr : Fail(nullptr, message);
}

OrtStatus* Kernel::ReadConstants(const OrtKernelInfo* info) {
  // A node that leaves an array out, in place of an empty tensor, is taken for one whose array is not constant: it runs, and its
  // factor is checked at every call.
  const OpSchema& schema = *op_.schema;
  OpCall call = {&schema, {}, attributes_};
  bool all_arrays = true;
  for (size_t i = 0; i < schema.input_count; ++i) {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    EC_ORT_RETURN_IF_ERROR(GetConstantInput::Call(api_, info, i, &is_constant, &value));
    is_constant_[i] = is_constant != 0;
    if (is_constant_[i]) EC_ORT_RETURN_IF_ERROR(ReadTensor(api_, value, schema.inputs[i].optional, &constants_[i]));
    call.inputs[i] = &constants_[i];
    if (i >= 1 && i <= schema.array_count) all_arrays = all_arrays && is_constant_[i];
  }
  if (!all_arrays) return nullptr;
  SessionHost host(api_, allocator_, nullptr);
  Message message;
  is_bound_ = BindFactor(op_, call, &host, &factor_, &message);
  return is_bound_ ? nullptr : Fail(&host, message);
}

OrtStatus* Kernel::Compute(OrtKernelContext* context) const {
  const OpSchema& schema = *op_.schema;
  OpCall call = {&schema, {}, attributes_};
  Tensor given[kMaxInputs];
  size_t count = 0;
  EC_ORT_RETURN_IF_ERROR(GetInputCount::Call(api_, context, &count));
  for (size_t i = 0; i < schema.input_count; ++i) {
    call.inputs[i] = is_constant_[i] ? &constants_[i] : &given[i];
    if (is_constant_[i] || i >= count) continue;
    const OrtValue* value = nullptr;
    EC_ORT_RETURN_IF_ERROR(GetInput::Call(api_, context, i, &value));
    EC_ORT_RETURN_IF_ERROR(ReadTensor(api_, value, schema.inputs[i].optional, &given[i]));
  }
  SessionHost host(api_, allocator_, context);
  Message message;
  return RunOp(op_, call, is_bound_ ? &factor_ : nullptr, &host, &message) ? nullptr : Fail(&host, message);
}

OrtStatus* CreateKernel(const OrtCustomOp* op, Api api, const OrtKernelInfo* info, void** kernel) {
  void* memory = std::malloc(sizeof(Kernel));
  if (memory == nullptr) return CreateStatus::Call(api, kFail, "edgecomp: no memory for a kernel");
  auto* made = new (memory) Kernel(*Description(op).op, api);
  OrtStatus* status = made->Initialize(info);
  if (status == nullptr) {
    *kernel = made;
  } else {
    made->~Kernel();
    std::free(memory);
  }
  return status;
}

// Reads the attributes of a node whose shapes are inferred. A choice or a float has no part in a shape, and stays 0.
OrtStatus* ReadInferenceAttributes(Api api, const OrtShapeInferContext* context, const OpSchema& schema, AttributeValue* values) {
  for (size_t i = 0; i < schema.attribute_count; ++i) {
    const AttributeSchema& attribute = schema.attributes[i];
    if (attribute.kind == AttributeKind::kChoice || attribute.kind == AttributeKind::kFloat) continue;
    const OrtOpAttr* found = nullptr;
    EC_ORT_RETURN_IF_ERROR(InferenceAttribute::Call(api, context, attribute.name, &found));
    size_t used = 0;
    const int type = attribute.kind == AttributeKind::kInt ? kIntAttribute : kIntsAttribute;
    EC_ORT_RETURN_IF_ERROR(ort::ReadAttribute::Call(api, found, type, values[i].ints, attribute.count * sizeof(int64_t), &used));
  }
  return nullptr;
}

// Leaves the output's shape unknown where the model does not say input 0's, or not enough of it.
OrtStatus* InferOutputShape(const OrtCustomOp* op, OrtShapeInferContext* context) {
  const Api api = Description(op).api;
  const OpSchema& schema = SchemaOf(op);
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  Shape first = {};
  const char* symbols[kMaxRank] = {};
  OrtStatus* status = InferenceInput::Call(api, context, 0, &info);
  if (status == nullptr && info == nullptr) return nullptr;
  if (status == nullptr) status = GetDimensionsCount::Call(api, info, &first.rank);
  if (status == nullptr && first.rank > kMaxRank) return nullptr;
  if (status == nullptr) status = GetDimensions::Call(api, info, first.dims, first.rank);
  if (status == nullptr) status = GetSymbolicDimensions::Call(api, info, symbols, first.rank);
  if (status != nullptr) {
    ReleaseStatus::Call(api, status);
    return nullptr;
  }
  for (size_t i = 0; i < first.rank; ++i) {
    if (first.dims[i] < 0) first.dims[i] = -1 - static_cast<int64_t>(i);  // finds its symbol in the output
  }

  AttributeValue attributes[kMaxAttributes] = {};
  EC_ORT_RETURN_IF_ERROR(ReadInferenceAttributes(api, context, schema, attributes));
  Message message;
  Shape output = {};
  if (!Description(op).op->output_shape({&schema, {}, attributes}, first, &output, &message)) return nullptr;
  const char* output_symbols[kMaxRank] = {};
  for (size_t i = 0; i < output.rank; ++i) {
    // A negative size that is no code of ours comes from an attribute of a damaged node, which making the kernel refuses.
    if (output.dims[i] < -static_cast<int64_t>(first.rank)) return nullptr;
    output_symbols[i] = output.dims[i] < 0 ? symbols[-1 - output.dims[i]] : "";
    // An open dimension without a symbol would be taken for one of size -1.
    if (output.dims[i] < 0 && output_symbols[i][0] == '\0') return nullptr;
    if (output.dims[i] < 0) output.dims[i] = -1;
  }
  EC_ORT_RETURN_IF_ERROR(CreateTensorTypeAndShapeInfo::Call(api, &info));
  status = SetTensorElementType::Call(api, info, OrtTypeOf(schema.output_type));
  if (status == nullptr) status = SetDimensions::Call(api, info, output.dims, output.rank);
  if (status == nullptr) status = SetSymbolicDimensions::Call(api, info, output_symbols, output.rank);
  if (status == nullptr) status = InferenceSetOutput::Call(api, context, 0, info);
  ReleaseTensorTypeAndShapeInfo::Call(api, info);
  return status;
}

// ONNX Runtime asks which input an output may take the place of without saying of which operator: a function for each input.
template <int kInput>
size_t InPlaceOf(int** input, int** output) {
  static int from = kInput, to = 0;
  *input = &from;
  *output = &to;
  return 1;
}
template <int... kInputs>
auto InPlaceOfInput(size_t input, std::integer_sequence<int, kInputs...>) {
  static constexpr decltype(OrtCustomOp::GetMayInplace) kFunctions[] = {InPlaceOf<kInputs>...};
  return kFunctions[input];
}

}  // namespace

void DescribeOp(const Op& described, Api api, OpDescription* description) {
  OrtCustomOp* op = description;
  description->op = &described;
  description->api = api;
  op->version = kApiVersion;
  op->GetName = [](const OrtCustomOp* self) { return SchemaOf(self).onnx_name; };
  op->GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
  op->GetInputTypeCount = [](const OrtCustomOp* self) { return SchemaOf(self).input_count; };
  op->GetInputType = [](const OrtCustomOp* self, size_t index) { return OrtTypeOf(SchemaOf(self).inputs[index].type); };
  op->GetInputCharacteristic = [](const OrtCustomOp* self, size_t index) -> int {
    return SchemaOf(self).inputs[index].optional ? kOptional : kRequired;
  };
  op->GetInputMemoryType = [](const OrtCustomOp*, size_t) { return kDefaultMemory; };
  op->GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op->GetOutputType = [](const OrtCustomOp* self, size_t) -> int { return OrtTypeOf(SchemaOf(self).output_type); };
  op->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return kRequired; };
  op->GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op->GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
  op->CreateKernelV2 = CreateKernel;
  op->KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return static_cast<const Kernel*>(kernel)->Compute(context);
  };
  op->KernelDestroy = [](void* kernel) {
    static_cast<Kernel*>(kernel)->~Kernel();
    std::free(kernel);
  };
  op->InferOutputShape = InferOutputShape;
  if (described.schema->has_in_place()) {
    op->GetMayInplace = InPlaceOfInput(described.schema->in_place, std::make_integer_sequence<int, kMaxInputs>{});
    op->ReleaseMayInplace = [](int*, int*) {};
  }
}

}  // namespace edgecomp::ort
