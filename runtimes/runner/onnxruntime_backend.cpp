// ONNX Runtime as a backend.
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "runner/backend.h"
#include "runner/fail.h"
#include "runner/onnxruntime_calls.h"
#include "runner/onnxruntime_decoder.h"

namespace edgecomp::runner {
namespace {

// The smallest useful model: IR version 8, opset 13, one Identity from x to y, both float [1].
constexpr char kEmptyModel[] =
    "\x08\x08"
    ":;\n\x10\n\x01x\x12\x01y\x22\x08Identity\x12\x05"
    "emptyZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    "b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    "B\x04\n\x00\x10\r";

class OnnxRuntime : public Backend {
 public:
  explicit OnnxRuntime(const Request& request) : request_(request), calls_(request.runtime), api_(calls_.api()) {}

  const char* Name() const override { return "onnxruntime"; }

  void Start() override {
    constexpr int kErrors = 3;  // warnings about a model are noise in a measurement
    Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not start", ort::CreateEnv::Call(api_, kErrors, "edgecomp", &env_));
    OrtSessionOptions* options = MakeOptions();
    Check(ErrorClass::kRuntimeUnavailable, "ONNX Runtime does not run an empty model",
          ort::CreateSessionFromArray::Call(api_, env_, kEmptyModel, sizeof(kEmptyModel) - 1, options, &session_));
    ort::ReleaseSessionOptions::Call(api_, options);
    float zero = 0;
    const int64_t one = 1;
    OrtValue* x = calls_.MakeValue(ElementTypeNamed("float32"), &zero, sizeof(zero), &one, 1);
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
    Check(ErrorClass::kCheckpoint, std::string("ONNX Runtime ") + calls_.Version() + " refuses " + request_.artifact,
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
      values_.push_back(calls_.MakeValue(input.type, data, input.data.size(), input.shape.data(), input.shape.size()));
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
    for (size_t i = 0; i < results_.size(); ++i) views.push_back(calls_.View(output_names_[i], results_[i]));
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

  std::unique_ptr<Decoder> OpenDecoder() override {
    return MakeOnnxRuntimeDecoder(calls_, session_, request_, Inputs(), output_names_);
  }

  NamedTexts Versions() const override { return {{"onnxruntime", calls_.Version()}}; }

 private:
  void Check(ErrorClass error, const std::string& what, OrtStatus* status) const { calls_.Check(error, what, status); }
  void Require(OrtStatus* status) const { calls_.Require(status); }

  OrtSessionOptions* MakeOptions() const {
    OrtSessionOptions* options = nullptr;
    Require(ort::CreateSessionOptions::Call(api_, &options));
    Require(ort::SetIntraOpNumThreads::Call(api_, options, request_.threads));
    Require(ort::SetInterOpNumThreads::Call(api_, options, 1));
    return options;
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
    calls_.ReadTypeAndShape(name, tensor, &spec.type, &sizes);
    std::vector<const char*> symbols(sizes.size());
    Require(ort::GetSymbolicDimensions::Call(api_, tensor, symbols.data(), symbols.size()));
    for (size_t i = 0; i < sizes.size(); ++i) spec.shape.push_back({sizes[i], symbols[i]});
    ort::ReleaseTypeInfo::Call(api_, info);
    return spec;
  }

  void Release(std::vector<OrtValue*>* values) const {
    for (OrtValue*& value : *values) {
      ort::ReleaseValue::Call(api_, value);
      value = nullptr;
    }
    if (values == &values_) values->clear();  // results keep their places
  }

  const Request& request_;
  const OrtCalls calls_;
  const OrtCalls::Api api_;
  OrtEnv* env_ = nullptr;
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
