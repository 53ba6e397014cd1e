// ONNX Runtime's C interface as the runner calls it: its library is loaded at run time, from wherever the wheel or the device has
// it.
#ifndef EDGECOMP_RUNNER_ONNXRUNTIME_CALLS_H_
#define EDGECOMP_RUNNER_ONNXRUNTIME_CALLS_H_

#include <string>
#include <vector>

#include "adapters/onnxruntime/ort_abi.h"
#include "runner/fail.h"
#include "runner/tensor.h"

namespace edgecomp::runner {

class OrtCalls {
 public:
  using Api = const void* const*;

  // Fails with RuntimeUnavailableError where the library at `path` does not load, or is older than the interface.
  explicit OrtCalls(const std::string& path);

  Api api() const { return api_; }
  const char* Version() const { return base_->GetVersionString(); }

  // Ends the process where `status` is an error, with "WHAT: its message"; with DeviceError where no memory is left.
  void Check(ErrorClass error, const std::string& what, OrtStatus* status) const;

  // For calls that fail only where memory is out.
  void Require(OrtStatus* status) const;

  // A tensor of `data`, which outlives it.
  OrtValue* MakeValue(const ElementType* type, void* data, size_t bytes, const int64_t* shape, size_t rank) const;

  // What a value holds; it outlives the view.
  TensorView View(const std::string& name, OrtValue* value) const;

  void ReadTypeAndShape(const std::string& name, const OrtTensorTypeAndShapeInfo* info, const ElementType** type,
                        std::vector<int64_t>* shape) const;

 private:
  const OrtApiBase* base_ = nullptr;
  Api api_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
};

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_ONNXRUNTIME_CALLS_H_
