#include "adapters/onnxruntime/session_host.h"

namespace edgecomp::ort {
namespace {

constexpr struct {
  ec_type type;
  int ort;
} kTypes[] = {{EC_TYPE_FLOAT32, kFloat}, {EC_TYPE_UINT8, kUint8}, {EC_TYPE_INT8, kInt8},      {EC_TYPE_UINT16, kUint16},
              {EC_TYPE_INT32, kInt32},   {EC_TYPE_INT64, kInt64}, {EC_TYPE_FLOAT16, kFloat16}};

ec_type TypeOf(int ort) {
  for (const auto& known : kTypes) {
    if (known.ort == ort) return known.type;
  }
  return EC_TYPE_OTHER;
}

}  // namespace

int OrtTypeOf(ec_type type) {
  for (const auto& known : kTypes) {
    if (known.type == type) return known.ort;
  }
  return 0;
}

OrtStatus* ReadTensor(Api api, const OrtValue* value, bool optional, Tensor* tensor) {
  tensor->type = EC_TYPE_NONE;
  tensor->data = nullptr;
  if (value == nullptr) return nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  EC_ORT_RETURN_IF_ERROR(GetTensorTypeAndShape::Call(api, value, &info));
  int type = 0;
  void* data = nullptr;
  OrtStatus* status = GetTensorElementType::Call(api, info, &type);
  if (status == nullptr) status = GetDimensionsCount::Call(api, info, &tensor->shape.rank);
  if (status == nullptr && tensor->shape.rank > kMaxRank) {
    status = CreateStatus::Call(api, kInvalidArgument, "edgecomp: tensors must have at most 16 dimensions");
  }
  if (status == nullptr) status = GetDimensions::Call(api, info, tensor->shape.dims, tensor->shape.rank);
  if (status == nullptr) status = GetTensorMutableData::Call(api, const_cast<OrtValue*>(value), &data);
  ReleaseTensorTypeAndShapeInfo::Call(api, info);
  if (status != nullptr || (optional && tensor->shape.Elements() == 0)) return status;
  tensor->type = TypeOf(type);
  tensor->data = data;
  return nullptr;
}

SessionHost::~SessionHost() {
  for (void* memory : temporaries_) {
    if (memory == nullptr) continue;
    OrtStatus* status = AllocatorFree::Call(api_, allocator_, memory);
    if (status != nullptr) ReleaseStatus::Call(api_, status);
  }
  if (error_ != nullptr) ReleaseStatus::Call(api_, error_);
}

void* SessionHost::Output(const Shape& shape) {
  OrtValue* value = nullptr;
  void* data = nullptr;
  error_ = GetOutput::Call(api_, context_, 0, shape.dims, shape.rank, &value);
  if (error_ == nullptr) error_ = GetTensorMutableData::Call(api_, value, &data);
  return data;
}

void* SessionHost::Temporary(size_t bytes) {
  void** memory = temporaries_[0] == nullptr ? &temporaries_[0] : &temporaries_[1];
  error_ = AllocatorAlloc::Call(api_, allocator_, bytes, memory);
  return *memory;
}

OrtStatus* SessionHost::TakeError() {
  OrtStatus* error = error_;
  error_ = nullptr;
  return error;
}

void SessionHost::Run(void* self, void (*fn)(void* arg, size_t i), size_t count, void* arg) {
  const auto* host = static_cast<const SessionHost*>(self);
  OrtStatus* status = ParallelFor::Call(host->api_, host->context_, fn, count, 0, arg);
  if (status == nullptr) return;
  ReleaseStatus::Call(host->api_, status);
  for (size_t i = 0; i < count; ++i) fn(arg, i);  // tasks write the same results if some of them ran already
}

}  // namespace edgecomp::ort
