// One custom operator: its description to ONNX Runtime, and the part of a kernel that all operators share.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_

#include <cstdlib>
#include <new>

#include "adapters/onnxruntime/factor_inputs.h"
#include "adapters/onnxruntime/tensor.h"
#include "edgecomp/edgecomp.h"

namespace edgecomp::ort {

// A node of a session. Subclasses add `OrtStatus* Initialize(info)` and `OrtStatus* Compute(context) const`.
class LutKernel {
 public:
  OrtStatus* InitializeCommon(Api api, const char* op, const OrtKernelInfo* info);
  ~LutKernel();

 protected:
  OrtStatus* ReadCompute(const OrtKernelInfo* info, ec_compute* compute) const;
  // Keeps the bias at input `index` where it is constant: reading it anew would cost each call of a small layer 5 % of its time.
  OrtStatus* InitializeBias(const OrtKernelInfo* info, size_t index);
  // The optional bias at input `index`, float32 [N] or empty; null where it is absent.
  OrtStatus* ReadBias(const OrtKernelContext* context, size_t index, int64_t n, const float** bias) const;
  // A status of the C interface as one of the runtime, with the shape of input 0.
  OrtStatus* FailWith(ec_status status, const ec_lut_factor& factor, const Shape& input) const;

  Api api_ = nullptr;
  NodeName name_ = {};
  OrtAllocator* allocator_ = nullptr;
  FactorInputs factor_inputs_;

 private:
  bool bias_is_constant_ = false;
  Tensor constant_bias_ = {};
};

// The session's intra-op threads, for the length of one call.
class SessionThreads {
 public:
  SessionThreads(Api api, const OrtKernelContext* context) : api_(api), context_(context), parallel_{this, Run, 0} {}
  SessionThreads(const SessionThreads&) = delete;
  SessionThreads& operator=(const SessionThreads&) = delete;
  const ec_parallel* parallel() const { return &parallel_; }

 private:
  static void Run(void* self, void (*fn)(void* arg, size_t i), size_t count, void* arg);

  Api api_;
  const OrtKernelContext* context_;
  ec_parallel parallel_;
};

// What ONNX Runtime asks of an operator.
struct OpDescription : OrtCustomOp {
  const char* name;
  size_t inputs;
  ElementType first_input_type;
  Api api;  // for the callbacks that are not handed one
};

// Fills in all callbacks but those that make and run kernels and infer shapes.
void DescribeOp(const char* name, size_t inputs, ElementType first_input_type, Api api, OpDescription* op);

// The callbacks of `Kernel`, which has kName, kInputs, kFirstInputType, Initialize, Compute and InferShape. No exception can pass:
// none is thrown anywhere in this library.
template <class Kernel>
void DescribeKernel(Api api, OpDescription* op) {
  DescribeOp(Kernel::kName, Kernel::kInputs, Kernel::kFirstInputType, api, op);
  op->CreateKernelV2 = [](const OrtCustomOp*, Api api, const OrtKernelInfo* info, void** kernel) -> OrtStatus* {
    void* memory = std::malloc(sizeof(Kernel));
    if (memory == nullptr) return CreateStatus::Call(api, kFail, "edgecomp: no memory for a kernel");
    auto* made = new (memory) Kernel();
    OrtStatus* status = made->InitializeCommon(api, Kernel::kName, info);
    if (status == nullptr) status = made->Initialize(info);
    if (status == nullptr) {
      *kernel = made;
    } else {
      made->~Kernel();
      std::free(memory);
    }
    return status;
  };
  op->KernelComputeV2 = [](void* kernel, OrtKernelContext* context) -> OrtStatus* {
    return static_cast<Kernel*>(kernel)->Compute(context);
  };
  op->KernelDestroy = [](void* kernel) {
    static_cast<Kernel*>(kernel)->~Kernel();
    std::free(kernel);
  };
  op->InferOutputShape = [](const OrtCustomOp* self, OrtShapeInferContext* context) -> OrtStatus* {
    return Kernel::InferShape(static_cast<const OpDescription*>(self)->api, context);
  };
}

// Shape inference. A dimension that the model leaves open is -1 and may have a symbol.
struct InferredShape {
  Shape shape;
  const char* symbols[kMaxRank];
};
// False where the model does not say the shape of input 0; the output's then stays unknown.
bool ReadInferenceInput(Api api, const OrtShapeInferContext* context, InferredShape* input);
// Leaves the output's shape unknown where it has an open dimension without a symbol.
OrtStatus* SetInferenceOutput(Api api, OrtShapeInferContext* context, const InferredShape& output);
OrtStatus* ReadInferenceInts(Api api, const OrtShapeInferContext* context, const char* attribute, int64_t* values, size_t count);
OrtStatus* ReadInferenceInt(Api api, const OrtShapeInferContext* context, const char* attribute, int64_t* value);

}  // namespace edgecomp::ort

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_
