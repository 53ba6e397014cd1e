#include "adapters/onnxruntime/custom_op.h"

#include <cstdint>
#include <cstring>

namespace edgecomp::ort {
namespace {

constexpr size_t kRowIndexInput = kFirstFactorInput + kFactorInputs - 1;  // it and the bias after it are optional

constexpr ElementType kFactorTypes[] = {kUint8, kInt8, kUint16, kInt8, kFloat, kInt32, /*bias*/ kFloat};

const OpDescription& Description(const OrtCustomOp* op) { return *static_cast<const OpDescription*>(op); }

}  // namespace

OrtStatus* LutKernel::InitializeCommon(Api api, const char* op, const OrtKernelInfo* info) {
  api_ = api;
  name_.op = op;
  size_t size = sizeof(name_.node);
  OrtStatus* too_long = GetNodeName::Call(api, info, name_.node, &size);
  if (too_long != nullptr) {
    ReleaseStatus::Call(api, too_long);
    std::strcpy(name_.node, "(a long name)");
  }
  EC_ORT_RETURN_IF_ERROR(GetAllocator::Call(api, info, kDefaultMemory, &allocator_));
  return factor_inputs_.Initialize(api, name_, info, allocator_);
}

LutKernel::~LutKernel() {
  if (allocator_ != nullptr) ReleaseAllocator::Call(api_, allocator_);
}

OrtStatus* LutKernel::ReadCompute(const OrtKernelInfo* info, ec_compute* compute) const {
  char text[16] = "";
  size_t size = sizeof(text);
  OrtStatus* status = GetStringAttribute::Call(api_, info, "compute", text, &size);
  if (status == nullptr && std::strcmp(text, "int8") == 0) {
    *compute = EC_COMPUTE_INT8;
    return nullptr;
  }
  if (status == nullptr && std::strcmp(text, "float") == 0) {
    *compute = EC_COMPUTE_FLOAT;
    return nullptr;
  }
  if (status != nullptr) ReleaseStatus::Call(api_, status);
  return Fail(api_, kInvalidArgument, name_, "the attribute compute must be 'int8' or 'float', got '%s'",
              status == nullptr ? text : "no or another string");
}

OrtStatus* LutKernel::InitializeBias(const OrtKernelInfo* info, size_t index) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  EC_ORT_RETURN_IF_ERROR(GetConstantInput::Call(api_, info, index, &is_constant, &value));
  bias_is_constant_ = is_constant != 0;
  return bias_is_constant_ ? ReadTensor(api_, name_, value, &constant_bias_) : nullptr;
}

OrtStatus* LutKernel::ReadBias(const OrtKernelContext* context, size_t index, int64_t n, const float** bias) const {
  Tensor tensor = constant_bias_;
  if (!bias_is_constant_) EC_ORT_RETURN_IF_ERROR(ReadInput(api_, name_, context, index, &tensor));
  *bias = nullptr;
  if (tensor.shape.Elements() == 0) return nullptr;
  if (tensor.type != kFloat || tensor.shape.rank != 1 || tensor.shape.dims[0] != n) {
    return Fail(api_, kInvalidArgument, name_, "bias must be float32 [%lld] or empty, got %s %s", static_cast<long long>(n),
                ElementTypeName(tensor.type), ShapeText(tensor.shape).text);
  }
  *bias = static_cast<const float*>(tensor.data);
  return nullptr;
}

OrtStatus* LutKernel::FailWith(ec_status status, const ec_lut_factor& factor, const Shape& input) const {
  return Fail(api_, kInvalidArgument, name_, "%s; got input 0 of shape %s, N=%lld, K=%lld, bits=%d, block_size=%lld",
              ec_status_message(status), ShapeText(input).text, static_cast<long long>(factor.n), static_cast<long long>(factor.k),
              factor.bits, static_cast<long long>(factor.block_size));
}

void SessionThreads::Run(void* self, void (*fn)(void* arg, size_t i), size_t count, void* arg) {
  const auto* threads = static_cast<const SessionThreads*>(self);
  OrtStatus* status = ParallelFor::Call(threads->api_, threads->context_, fn, count, 0, arg);
  if (status == nullptr) return;
  ReleaseStatus::Call(threads->api_, status);
  for (size_t i = 0; i < count; ++i) fn(arg, i);  // tasks write the same results if some of them ran already
}

void DescribeOp(const char* name, size_t inputs, ElementType first_input_type, Api api, OpDescription* op) {
  op->version = kApiVersion;
  op->name = name;
  op->inputs = inputs;
  op->first_input_type = first_input_type;
  op->api = api;
  op->GetName = [](const OrtCustomOp* self) { return Description(self).name; };
  op->GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU's
  op->GetInputTypeCount = [](const OrtCustomOp* self) { return Description(self).inputs; };
  op->GetInputType = [](const OrtCustomOp* self, size_t index) -> int {
    return index == 0 ? Description(self).first_input_type : kFactorTypes[index - kFirstFactorInput];
  };
  op->GetInputCharacteristic = [](const OrtCustomOp*, size_t index) -> int {
    return index < kRowIndexInput ? kRequired : kOptional;
  };
  op->GetInputMemoryType = [](const OrtCustomOp*, size_t) { return kDefaultMemory; };
  op->GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op->GetOutputType = [](const OrtCustomOp*, size_t) -> int { return kFloat; };
  op->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) -> int { return kRequired; };
  op->GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op->GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
}

bool ReadInferenceInput(Api api, const OrtShapeInferContext* context, InferredShape* input) {
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  OrtStatus* status = InferenceInput::Call(api, context, 0, &info);
  bool known = status == nullptr && info != nullptr;
  if (known) {
    status = GetDimensionsCount::Call(api, info, &input->shape.rank);
    known = status == nullptr && input->shape.rank < kMaxRank;  // one is left to append
  }
  if (known) {
    status = GetDimensions::Call(api, info, input->shape.dims, input->shape.rank);
    if (status == nullptr) status = GetSymbolicDimensions::Call(api, info, input->symbols, input->shape.rank);
    known = status == nullptr;
  }
  if (status != nullptr) ReleaseStatus::Call(api, status);
  return known;
}

OrtStatus* SetInferenceOutput(Api api, OrtShapeInferContext* context, const InferredShape& output) {
  // An open dimension without a symbol would be taken for one of size -1.
  for (size_t i = 0; i < output.shape.rank; ++i) {
    if (output.shape.dims[i] < 0 && output.symbols[i][0] == '\0') return nullptr;
  }
  OrtTensorTypeAndShapeInfo* info = nullptr;
  EC_ORT_RETURN_IF_ERROR(CreateTensorTypeAndShapeInfo::Call(api, &info));
  const size_t rank = output.shape.rank;
  OrtStatus* status = SetTensorElementType::Call(api, info, kFloat);
  if (status == nullptr) status = SetDimensions::Call(api, info, output.shape.dims, rank);
  if (status == nullptr) status = SetSymbolicDimensions::Call(api, info, const_cast<const char**>(output.symbols), rank);
  if (status == nullptr) status = InferenceSetOutput::Call(api, context, 0, info);
  ReleaseTensorTypeAndShapeInfo::Call(api, info);
  return status;
}

OrtStatus* ReadInferenceInts(Api api, const OrtShapeInferContext* context, const char* attribute, int64_t* values, size_t count) {
  const OrtOpAttr* attr = nullptr;
  EC_ORT_RETURN_IF_ERROR(InferenceAttribute::Call(api, context, attribute, &attr));
  size_t used = 0;
  return ReadAttribute::Call(api, attr, kIntsAttribute, values, count * sizeof(int64_t), &used);
}

OrtStatus* ReadInferenceInt(Api api, const OrtShapeInferContext* context, const char* attribute, int64_t* value) {
  const OrtOpAttr* attr = nullptr;
  EC_ORT_RETURN_IF_ERROR(InferenceAttribute::Call(api, context, attribute, &attr));
  size_t used = 0;
  return ReadAttribute::Call(api, attr, kIntAttribute, value, sizeof(*value), &used);
}

}  // namespace edgecomp::ort
