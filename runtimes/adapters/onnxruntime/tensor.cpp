#include "adapters/onnxruntime/tensor.h"

#include <cstdarg>
#include <cstdio>

namespace edgecomp::ort {

int64_t Shape::Elements(size_t first, size_t last) const {
  int64_t product = 1;
  for (size_t i = first; i < last; ++i) product *= dims[i];
  return product;
}

bool Shape::operator==(const Shape& other) const {
  bool equal = rank == other.rank;
  for (size_t i = 0; equal && i < rank; ++i) equal = dims[i] == other.dims[i];
  return equal;
}

ShapeText::ShapeText(const Shape& shape) {
  size_t used = static_cast<size_t>(std::snprintf(text, sizeof(text), "["));
  for (size_t i = 0; i < shape.rank; ++i) {
    used += static_cast<size_t>(
        std::snprintf(text + used, sizeof(text) - used, "%s%lld", i > 0 ? ", " : "", static_cast<long long>(shape.dims[i])));
  }
  std::snprintf(text + used, sizeof(text) - used, "]");
}

const char* ElementTypeName(int type) {
  switch (type) {
    case kFloat:
      return "float32";
    case kUint8:
      return "uint8";
    case kInt8:
      return "int8";
    case kUint16:
      return "uint16";
    case kInt32:
      return "int32";
    case kInt64:
      return "int64";
    default:
      return "another type";
  }
}

OrtStatus* Fail(Api api, ErrorCode code, const NodeName& name, const char* format, ...) {
  char message[1024];
  const int used = std::snprintf(message, sizeof(message), "%s node '%s': ", name.op, name.node);
  va_list arguments;
  va_start(arguments, format);
  if (used > 0 && static_cast<size_t>(used) < sizeof(message)) {
    std::vsnprintf(message + used, sizeof(message) - static_cast<size_t>(used), format, arguments);
  }
  va_end(arguments);
  return CreateStatus::Call(api, code, message);
}

OrtStatus* ReadTensor(Api api, const NodeName& name, const OrtValue* value, Tensor* tensor) {
  *tensor = {0, {{0}, 1}, nullptr};
  if (value == nullptr) return nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  EC_ORT_RETURN_IF_ERROR(GetTensorTypeAndShape::Call(api, value, &info));
  OrtStatus* status = GetTensorElementType::Call(api, info, &tensor->type);
  if (status == nullptr) status = GetDimensionsCount::Call(api, info, &tensor->shape.rank);
  if (status == nullptr && tensor->shape.rank > kMaxRank) {
    status = Fail(api, kInvalidArgument, name, "tensors must have at most %zu dimensions, got %zu", kMaxRank, tensor->shape.rank);
  }
  if (status == nullptr) status = GetDimensions::Call(api, info, tensor->shape.dims, tensor->shape.rank);
  if (status == nullptr) status = GetTensorMutableData::Call(api, const_cast<OrtValue*>(value), &tensor->data);
  ReleaseTensorTypeAndShapeInfo::Call(api, info);
  return status;
}

OrtStatus* ReadInput(Api api, const NodeName& name, const OrtKernelContext* context, size_t index, Tensor* tensor) {
  size_t count = 0;
  EC_ORT_RETURN_IF_ERROR(GetInputCount::Call(api, context, &count));
  const OrtValue* value = nullptr;
  if (index < count) EC_ORT_RETURN_IF_ERROR(GetInput::Call(api, context, index, &value));
  return ReadTensor(api, name, value, tensor);
}

OrtStatus* CreateOutput(Api api, OrtKernelContext* context, const Shape& shape, float** data) {
  OrtValue* value = nullptr;
  EC_ORT_RETURN_IF_ERROR(GetOutput::Call(api, context, 0, shape.dims, shape.rank, &value));
  void* bytes = nullptr;
  EC_ORT_RETURN_IF_ERROR(GetTensorMutableData::Call(api, value, &bytes));
  *data = static_cast<float*>(bytes);
  return nullptr;
}

Scratch::~Scratch() {
  if (data_ == nullptr) return;
  OrtStatus* status = AllocatorFree::Call(api_, allocator_, data_);
  if (status != nullptr) ReleaseStatus::Call(api_, status);
}

OrtStatus* Scratch::Allocate(size_t bytes) { return AllocatorAlloc::Call(api_, allocator_, bytes, &data_); }

}  // namespace edgecomp::ort
