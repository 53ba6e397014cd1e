// ExecuTorch as a backend: linked, since its C++ interface is no stable one that a library could be loaded through.
#include <dlfcn.h>
#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include <cstdio>
#include <cstring>

#include "runner/backend.h"
#include "runner/empty_program.h"
#include "runner/executorch_decoder.h"
#include "runner/executorch_errors.h"
#include "runner/executorch_tracer.h"
#include "runner/fail.h"

// Exported by libexecutorch_threadpool.so; the wheel has no header for it.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace edgecomp::runner {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

constexpr const char* kMethod = "forward";
// Methods of a program of ours, see edgecomp/exported/executorch_file.py.
constexpr const char* kInputNames = "edgecomp_input_names";
constexpr const char* kOutputNames = "edgecomp_output_names";

constexpr struct {
  ScalarType scalar;
  const char* name;
} kTypes[] = {{ScalarType::Byte, "uint8"},    {ScalarType::Char, "int8"},      {ScalarType::Short, "int16"},
              {ScalarType::Int, "int32"},     {ScalarType::Long, "int64"},     {ScalarType::Half, "float16"},
              {ScalarType::Float, "float32"}, {ScalarType::Double, "float64"}, {ScalarType::Bool, "bool"},
              {ScalarType::UInt16, "uint16"}, {ScalarType::UInt32, "uint32"},  {ScalarType::UInt64, "uint64"}};

const ElementType* TypeOf(const std::string& tensor, ScalarType scalar) {
  for (const auto& type : kTypes) {
    if (type.scalar == scalar) return ElementTypeNamed(type.name);
  }
  Fail(ErrorClass::kModel,
       tensor + " has ExecuTorch type " + std::to_string(static_cast<int>(scalar)) + "; numbers and bool can be measured");
}

ScalarType ScalarOf(const ElementType* type) {
  for (const auto& known : kTypes) {
    if (ElementTypeNamed(known.name) == type) return known.scalar;
  }
  return ScalarType::Undefined;  // the table holds every type that the runner has
}

// An input's memory and shape as ExecuTorch sees them.
struct Input {
  std::vector<executorch::aten::SizesType> sizes;
  std::vector<executorch::aten::DimOrderType> order;
  std::vector<executorch::aten::StridesType> strides;
  std::unique_ptr<TensorImpl> tensor;

  explicit Input(const Tensor& input) : sizes(input.shape.begin(), input.shape.end()), order(sizes.size()), strides(sizes.size()) {
    int64_t stride = 1;
    for (size_t i = sizes.size(); i-- > 0; stride *= sizes[i] > 0 ? sizes[i] : 1) {
      order[i] = static_cast<executorch::aten::DimOrderType>(i);
      strides[i] = static_cast<executorch::aten::StridesType>(stride);
    }
    // The runtime only reads inputs, though its interface does not say so.
    tensor = std::make_unique<TensorImpl>(ScalarOf(input.type), static_cast<ssize_t>(sizes.size()), sizes.data(),
                                          const_cast<uint8_t*>(input.data.data()), order.data(), strides.data());
  }
};

class ExecuTorch : public Backend {
 public:
  explicit ExecuTorch(const Request& request) : request_(request) { KeepErrors(); }

  const char* Name() const override { return "executorch"; }

  void Start() override {
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(static_cast<uint32_t>(request_.threads));
    Module empty(std::make_unique<executorch::extension::BufferDataLoader>(kEmptyProgram, sizeof(kEmptyProgram)));
    const float zero = 0;
    Tensor x{"x", ElementTypeNamed("float32"), {1}, std::vector<uint8_t>(sizeof(zero))};
    const Input input(x);
    const auto result = empty.forward(EValue(executorch::aten::Tensor(input.tensor.get())));
    if (!result.ok()) Fail(ErrorClass::kRuntimeUnavailable, "ExecuTorch does not run: " + FirstError(result.error()));
  }

  void Load() override {
    if (!request_.library.empty() && dlopen(request_.library.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      Fail(ErrorClass::kRuntimeUnavailable, "the operator library " + request_.library + " does not load: " + dlerror());
    }
    ForgetErrors();
    std::vector<std::string> data_files;
    for (const std::string& file : request_.files) {
      if (file != request_.artifact) data_files.push_back(file);
    }
    // Mapped: the default reads the whole file into memory of the process's own.
    module_ = std::make_unique<Module>(request_.artifact, data_files, Module::LoadMode::Mmap);
    // Every offset of the program is held to its bounds; the weights, which lie behind it, are not read for that.
    Error error = module_->load(executorch::runtime::Program::Verification::InternalConsistency);
    if (error == Error::Ok) error = module_->load_method(kMethod, nullptr, tracer_.get());
    if (error == Error::OperatorMissing) {
      Fail(ErrorClass::kRuntimeUnavailable, request_.artifact + " calls an operator that is not registered (" + FirstError(error) +
                                                "): give the library that has it");
    }
    Check(ErrorClass::kCheckpoint, "ExecuTorch " EDGECOMP_EXECUTORCH_VERSION " refuses " + request_.artifact, error);
    input_names_ = ReadNames(kInputNames, "input_", Meta().num_inputs());
    output_names_ = ReadNames(kOutputNames, "output_", Meta().num_outputs());
  }

  void Unload() override {
    results_.clear();
    module_.reset();
  }

  std::vector<TensorSpec> Inputs() const override {
    std::vector<TensorSpec> specs;
    for (size_t i = 0; i < input_names_.size(); ++i) specs.push_back(ReadSpec(input_names_[i], Meta().input_tensor_meta(i)));
    return specs;
  }

  std::vector<TensorSpec> Outputs() const override {
    std::vector<TensorSpec> specs;
    for (size_t i = 0; i < output_names_.size(); ++i) specs.push_back(ReadSpec(output_names_[i], Meta().output_tensor_meta(i)));
    return specs;
  }

  void SetInputs(const std::vector<Tensor>& inputs) override {
    inputs_.clear();
    values_.clear();
    described_inputs_.clear();
    for (const Tensor& input : inputs) {
      inputs_.emplace_back(input);
      described_inputs_ += (described_inputs_.empty() ? "" : ", ") + input.name + " " + input.Describe();
    }
    for (const Input& input : inputs_) values_.emplace_back(executorch::aten::Tensor(input.tensor.get()));
  }

  void Run() override {
    auto result = module_->execute(kMethod, values_);
    if (!result.ok()) {
      Fail(ErrorClass::kModel, "the program does not run on inputs " + described_inputs_ + ": " + FirstError(result.error()));
    }
    results_ = std::move(*result);
  }

  std::vector<TensorView> LastOutputs() const override {
    std::vector<TensorView> views;
    for (size_t i = 0; i < results_.size(); ++i) {
      if (!results_[i].isTensor()) Fail(ErrorClass::kModel, output_names_[i] + " must be a tensor; other values are not measured");
      const auto& tensor = results_[i].toTensor();
      views.push_back({output_names_[i], TypeOf(output_names_[i], tensor.scalar_type()),
                       std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end()), tensor.const_data_ptr(),
                       tensor.nbytes()});
    }
    return views;
  }

  void StartTrace(const std::string& file) override {
    trace_file_ = file;
    tracer_ = std::make_unique<ExecuTorchTracer>();
  }

  void EndTrace() override { tracer_->Write(trace_file_); }

  std::unique_ptr<Decoder> OpenDecoder() override { return MakeExecuTorchDecoder(module_.get(), request_); }

  NamedTexts Versions() const override { return {{"executorch", EDGECOMP_EXECUTORCH_VERSION}}; }

 private:
  void Check(ErrorClass kind, const std::string& what, Error error) const {
    if (error != Error::Ok) Fail(kind, what + ": " + FirstError(error));
  }

  executorch::runtime::MethodMeta Meta() const {
    auto meta = module_->method_meta(kMethod);
    Check(ErrorClass::kCheckpoint, request_.artifact + " has no signature", meta.error());
    return *meta;
  }

  // Names from a method of the program; numbered where it has none.
  std::vector<std::string> ReadNames(const char* method, const char* prefix, size_t count) {
    std::vector<std::string> names;
    const auto methods = module_->method_names();
    if (methods.ok() && methods->count(method) != 0) {
      const auto values = module_->execute(method);
      if (values.ok()) {
        for (const EValue& value : *values) names.emplace_back(value.isString() ? value.toString() : std::string_view());
      }
      module_->unload_method(method);
      if (names.size() != count) Fail(ErrorClass::kCheckpoint, request_.artifact + " must name all that " + method + " tells");
      return names;
    }
    for (size_t i = 0; i < count; ++i) names.push_back(prefix + std::to_string(i));
    return names;
  }

  // Sizes that the program leaves free are its largest here.
  TensorSpec ReadSpec(const std::string& name, const executorch::runtime::Result<executorch::runtime::TensorInfo>& info) const {
    if (!info.ok()) Fail(ErrorClass::kModel, name + " must be a tensor; other values are not measured");
    TensorSpec spec{name, TypeOf(name, info->scalar_type()), {}};
    for (const auto size : info->sizes()) spec.shape.push_back({size, ""});
    return spec;
  }

  const Request& request_;
  std::unique_ptr<ExecuTorchTracer> tracer_;  // outlives the module
  std::string trace_file_;
  std::unique_ptr<Module> module_;
  std::vector<std::string> input_names_, output_names_;
  std::vector<Input> inputs_;
  std::vector<EValue> values_;   // inputs
  std::vector<EValue> results_;  // of the last run
  std::string described_inputs_;
};

}  // namespace

std::unique_ptr<Backend> MakeBackend(const Request& request) { return std::make_unique<ExecuTorch>(request); }

}  // namespace edgecomp::runner
