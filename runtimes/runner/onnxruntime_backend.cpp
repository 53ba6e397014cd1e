// ONNX Runtime as a backend: its library is loaded at run time, from wherever the wheel or the device has it.
#include <dlfcn.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "adapters/onnxruntime/ort_abi.h"
#include "runner/backend.h"
#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

using Api = const void* const*;

// The smallest useful model: IR version 8, opset 13, one Identity from x to y, both float [1].
constexpr char kEmptyModel[] =
    "\x08\x08"
    ":;\n\x10\n\x01x\x12\x01y\x22\x08Identity\x12\x05"
    "emptyZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    "b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    "B\x04\n\x00\x10\r";

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

class OnnxRuntime : public Backend {
 public:
  explicit OnnxRuntime(const Request& request) : request_(request) {
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);  // it would add a thread, memory and files to what is measured
    void* library = dlopen(request.runtime.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      Fail(ErrorClass::kRuntimeUnavailable, "ONNX Runtime must load from '" + request.runtime + "': " + dlerror());
    }
    const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    base_ = get_base == nullptr ? nullptr : get_base();
    api_ = base_ == nullptr ? nullptr : base_->GetApi(ort::kApiVersion);
    if (api_ == nullptr) {
      Fail(ErrorClass::kRuntimeUnavailable, request.runtime + " must be ONNX Runtime 1.18 or later, got " +
                                                (base_ == nullptr ? "another library" : base_->GetVersionString()));
    }
  }

  const char* Name() const override { return "onnxruntime"; }

  void Start() override {
    constexpr int kErrors = 3;  // warnings about a model are noise in a measurement
    Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not start", ort::CreateEnv::Call(api_, kErrors, "edgecomp", &env_));
    constexpr int kArena = 1;
    Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not start",
          ort::CreateCpuMemoryInfo::Call(api_, kArena, ort::kDefaultMemory, &memory_));
    OrtSessionOptions* options = MakeOptions();
    Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not run an empty model",
          ort::CreateSessionFromArray::Call(api_, env_, kEmptyModel, sizeof(kEmptyModel) - 1, options, &session_));
    ort::ReleaseSessionOptions::Call(api_, options);
    float zero = 0;
    const int64_t one = 1;
    OrtValue* x = MakeValue(ElementTypeNamed("float32"), &zero, sizeof(zero), &one, 1);
    ReadNames();
    values_ = {x};
    Run();
    Unload();
  }

  void Load() override {
    OrtSessionOptions* options = MakeOptions();
    if (!trace_file_.empty()) Require(ort::EnableProfiling::Call(api_, options, trace_file_.c_str()));
    if (!request_.library.empty()) {
      void* handle = nullptr;
      Check(ErrorClass::kRuntimeUnavailable, "the custom-op library " + request_.library + " does not load",
            ort::RegisterCustomOpsLibrary::Call(api_, options, request_.library.c_str(), &handle));
    }
    Check(ErrorClass::kCheckpoint, std::string("ONNX Runtime ") + base_->GetVersionString() + " refuses " + request_.artifact,
          ort::CreateSession::Call(api_, env_, request_.artifact.c_str(), options, &session_));
    ort::ReleaseSessionOptions::Call(api_, options);
    ReadNames();
  }

  void Unload() override {
    Release(&values_);
    Release(&results_);
    ort::ReleaseSession::Call(api_, session_);
    session_ = nullptr;
  }

  std::vector<TensorSpec> Inputs() const override {
    std::vector<TensorSpec> specs;
    for (size_t i = 0; i < input_names_.size(); ++i) {
      OrtTypeInfo* info = nullptr;
      Require(ort::SessionGetInputTypeInfo::Call(api_, session_, i, &info));
      specs.push_back(ReadSpec(input_names_[i], info));
    }
    return specs;
  }

  std::vector<TensorSpec> Outputs() const override {
    std::vector<TensorSpec> specs;
    for (size_t i = 0; i < output_names_.size(); ++i) {
      OrtTypeInfo* info = nullptr;
      Require(ort::SessionGetOutputTypeInfo::Call(api_, session_, i, &info));
      specs.push_back(ReadSpec(output_names_[i], info));
    }
    return specs;
  }

  void SetInputs(const std::vector<Tensor>& inputs) override {
    Release(&values_);
    described_inputs_.clear();
    for (const Tensor& input : inputs) {
      // The runtime only reads inputs, though its interface does not say so.
      auto* data = const_cast<uint8_t*>(input.data.data());
      values_.push_back(MakeValue(input.type, data, input.data.size(), input.shape.data(), input.shape.size()));
      described_inputs_ += (described_inputs_.empty() ? "" : ", ") + input.name + " " + input.Describe();
    }
  }

  void Run() override {
    Release(&results_);
    OrtStatus* status = ort::Run::Call(api_, session_, nullptr, input_pointers_.data(), values_.data(), values_.size(),
                                       output_pointers_.data(), output_pointers_.size(), results_.data());
    if (status != nullptr) Check(ErrorClass::kModel, "the model does not run on inputs " + described_inputs_, status);
  }

  std::vector<TensorView> LastOutputs() const override {
    std::vector<TensorView> views;
    for (size_t i = 0; i < results_.size(); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      Require(ort::GetTensorTypeAndShape::Call(api_, results_[i], &info));
      TensorView view{output_names_[i], nullptr, {}, nullptr, 0};
      ReadTypeAndShape(view.name, info, &view.type, &view.shape);
      ort::ReleaseTensorTypeAndShapeInfo::Call(api_, info);
      void* data = nullptr;
      Require(ort::GetTensorMutableData::Call(api_, results_[i], &data));
      view.data = data;
      view.bytes = view.type->bytes;
      for (const int64_t size : view.shape) view.bytes *= static_cast<size_t>(size);
      views.push_back(view);
    }
    return views;
  }

  void StartTrace(const std::string& file) override { trace_file_ = file; }

  void EndTrace() override {
    OrtAllocator* allocator = nullptr;
    Require(ort::GetAllocatorWithDefaultOptions::Call(api_, &allocator));
    char* name = nullptr;  // the file's, with the time of day in it
    Require(ort::SessionEndProfiling::Call(api_, session_, allocator, &name));
    if (std::rename(name, trace_file_.c_str()) != 0) {
      Fail(ErrorClass::kDevice, "the trace of operators cannot be written to " + trace_file_ + ": " + std::strerror(errno));
    }
    Require(ort::AllocatorFree::Call(api_, allocator, name));
  }

  NamedTexts Versions() const override { return {{"onnxruntime", base_->GetVersionString()}}; }

 private:
  // Ends the process where `status` is an error, with "WHAT: its message".
  void Check(ErrorClass error, const std::string& what, OrtStatus* status) const {
    if (status == nullptr) return;
    Fail(error, what + ": " + FirstLine(ort::GetErrorMessage::Call(api_, status)));
  }

  // For calls that fail only where memory is out.
  void Require(OrtStatus* status) const { Check(ErrorClass::kDevice, "ONNX Runtime fails", status); }

  OrtSessionOptions* MakeOptions() const {
    OrtSessionOptions* options = nullptr;
    Require(ort::CreateSessionOptions::Call(api_, &options));
    Require(ort::SetIntraOpNumThreads::Call(api_, options, request_.threads));
    Require(ort::SetInterOpNumThreads::Call(api_, options, 1));
    return options;
  }

  OrtValue* MakeValue(const ElementType* type, void* data, size_t bytes, const int64_t* shape, size_t rank) const {
    OrtValue* value = nullptr;
    Require(ort::CreateTensorWithData::Call(api_, memory_, data, bytes, shape, rank, NumberOf(type), &value));
    return value;
  }

  void ReadNames() {
    OrtAllocator* allocator = nullptr;
    Require(ort::GetAllocatorWithDefaultOptions::Call(api_, &allocator));
    size_t count = 0;
    input_names_.clear();
    Require(ort::SessionGetInputCount::Call(api_, session_, &count));
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      Require(ort::SessionGetInputName::Call(api_, session_, i, allocator, &name));
      input_names_.push_back(name);
      Require(ort::AllocatorFree::Call(api_, allocator, name));
    }
    output_names_.clear();
    Require(ort::SessionGetOutputCount::Call(api_, session_, &count));
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      Require(ort::SessionGetOutputName::Call(api_, session_, i, allocator, &name));
      output_names_.push_back(name);
      Require(ort::AllocatorFree::Call(api_, allocator, name));
    }
    input_pointers_.clear();
    for (const std::string& name : input_names_) input_pointers_.push_back(name.c_str());
    output_pointers_.clear();
    for (const std::string& name : output_names_) output_pointers_.push_back(name.c_str());
    results_.assign(output_names_.size(), nullptr);
  }

  TensorSpec ReadSpec(const std::string& name, OrtTypeInfo* info) const {
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // borrowed
    Require(ort::CastTypeInfoToTensorInfo::Call(api_, info, &tensor));
    if (tensor == nullptr)
      Fail(ErrorClass::kModel, name + " must be a tensor; sequences, maps and optional values are not measured");
    TensorSpec spec{name, nullptr, {}};
    std::vector<int64_t> sizes;
    ReadTypeAndShape(name, tensor, &spec.type, &sizes);
    std::vector<const char*> symbols(sizes.size());
    Require(ort::GetSymbolicDimensions::Call(api_, tensor, symbols.data(), symbols.size()));
    for (size_t i = 0; i < sizes.size(); ++i) spec.shape.push_back({sizes[i], symbols[i]});
    ort::ReleaseTypeInfo::Call(api_, info);
    return spec;
  }

  void ReadTypeAndShape(const std::string& name, const OrtTensorTypeAndShapeInfo* info, const ElementType** type,
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

  void Release(std::vector<OrtValue*>* values) const {
    for (OrtValue*& value : *values) {
      ort::ReleaseValue::Call(api_, value);
      value = nullptr;
    }
    if (values == &values_) values->clear();  // results keep their places
  }

  const Request& request_;
  const OrtApiBase* base_ = nullptr;
  Api api_ = nullptr;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtSession* session_ = nullptr;
  std::vector<std::string> input_names_, output_names_;
  std::vector<const char*> input_pointers_, output_pointers_;
  std::vector<OrtValue*> values_;   // inputs
  std::vector<OrtValue*> results_;  // of the last run; null before
  std::string described_inputs_;
  std::string trace_file_;  // empty where runs are not traced
};

}  // namespace

std::unique_ptr<Backend> MakeBackend(const Request& request) { return std::make_unique<OnnxRuntime>(request); }

}  // namespace edgecomp::runner
