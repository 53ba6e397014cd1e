#include "runner/onnxruntime_calls.h"

#include <dlfcn.h>

#include <cstdlib>

namespace edgecomp::runner {
namespace {

// Element types by ONNX Runtime's numbers (ONNXTensorElementDataType); null where the runner has none.
constexpr const char* kTypeNames[] = {nullptr, "float32", "uint8", "int8",    "uint16",  "int16",  "int32",
                                      "int64", nullptr,   "bool",  "float16", "float64", "uint32", "uint64"};

const ElementType* TypeOf(int number) {
  constexpr int kTypes = sizeof(kTypeNames) / sizeof(kTypeNames[0]);
  return number < 0 || number >= kTypes || kTypeNames[number] == nullptr ? nullptr : ElementTypeNamed(kTypeNames[number]);
}

int NumberOf(const ElementType* type) {
  int number = 0;
  while (TypeOf(number) != type) ++number;
  return number;
}

std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// The runtime has no error code of its own for it.
bool IsOfMemory(const std::string& said) {
  return said.find("bad_alloc") != std::string::npos || said.find("Failed to allocate memory") != std::string::npos;
}

}  // namespace

OrtCalls::OrtCalls(const std::string& path) {
  setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // it would add a thread, memory and files to what is measured
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    Fail(ErrorClass::kRuntimeUnavailable, "ONNX Runtime must load from '" + path + "': " + dlerror());
  }
  const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  base_ = get_base == nullptr ? nullptr : get_base();
  api_ = base_ == nullptr ? nullptr : base_->GetApi(ort::kApiVersion);
  if (api_ == nullptr) {
    Fail(ErrorClass::kRuntimeUnavailable,
         path + " must be ONNX Runtime 1.18 or later, got " + (base_ == nullptr ? "another library" : base_->GetVersionString()));
  }
  constexpr int kArena = 1;
  Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not start",
        ort::CreateCpuMemoryInfo::Call(api_, kArena, ort::kDefaultMemory, &memory_));
}

void OrtCalls::Check(ErrorClass error, const std::string& what, OrtStatus* status) const {
  if (status == nullptr) return;
  const std::string said = FirstLine(ort::GetErrorMessage::Call(api_, status));
  if (IsOfMemory(said)) Fail(ErrorClass::kDevice, what + ", since no memory is left: use a smaller model or input (" + said + ")");
  Fail(error, what + ": " + said);
}

void OrtCalls::Require(OrtStatus* status) const { Check(ErrorClass::kDevice, "ONNX Runtime fails", status); }

OrtValue* OrtCalls::MakeValue(const ElementType* type, void* data, size_t bytes, const int64_t* shape, size_t rank) const {
  OrtValue* value = nullptr;
  Require(ort::CreateTensorWithData::Call(api_, memory_, data, bytes, shape, rank, NumberOf(type), &value));
  return value;
}

TensorView OrtCalls::View(const std::string& name, OrtValue* value) const {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Require(ort::GetTensorTypeAndShape::Call(api_, value, &info));
  TensorView view{name, nullptr, {}, nullptr, 0};
  ReadTypeAndShape(name, info, &view.type, &view.shape);
  ort::ReleaseTensorTypeAndShapeInfo::Call(api_, info);
  void* data = nullptr;
  Require(ort::GetTensorMutableData::Call(api_, value, &data));
  view.data = data;
  view.bytes = view.type->bytes;
  for (const int64_t size : view.shape) view.bytes *= static_cast<size_t>(size);
  return view;
}

void OrtCalls::ReadTypeAndShape(const std::string& name, const OrtTensorTypeAndShapeInfo* info, const ElementType** type,
                                std::vector<int64_t>* shape) const {
  int number = 0;
  Require(ort::GetTensorElementType::Call(api_, info, &number));
  *type = TypeOf(number);
  if (*type == nullptr) {
    Fail(ErrorClass::kModel, name + " has ONNX element type " + std::to_string(number) + "; numbers and bool can be measured");
  }
  size_t rank = 0;
  Require(ort::GetDimensionsCount::Call(api_, info, &rank));
  shape->resize(rank);
  Require(ort::GetDimensions::Call(api_, info, shape->data(), rank));
}

}  // namespace edgecomp::runner
