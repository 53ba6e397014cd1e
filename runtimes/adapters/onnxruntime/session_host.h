// A session as the host of a call: its threads, its memory, its tensors.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_SESSION_HOST_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_SESSION_HOST_H_

#include "adapters/onnxruntime/custom_op.h"

namespace edgecomp::ort {

int OrtTypeOf(ec_type type);

// Reads a value, which may be null: absent. So is an optional input without elements (edgecomp/ops.py).
OrtStatus* ReadTensor(Api api, const OrtValue* value, bool optional, Tensor* tensor);

class SessionHost final : public Host {
 public:
  // `context` is null before the first call, when there are neither threads nor an output.
  SessionHost(Api api, OrtAllocator* allocator, OrtKernelContext* context)
      : api_(api), allocator_(allocator), context_(context), parallel_{this, Run, 0} {}
  ~SessionHost();
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;

  const ec_parallel* parallel() override { return context_ != nullptr ? &parallel_ : nullptr; }
  void* Output(const Shape& shape) override;
  void* Temporary(size_t bytes) override;

  // Why the host failed, given away; null where it did not.
  OrtStatus* TakeError();

 private:
  static void Run(void* self, void (*fn)(void* arg, size_t i), size_t count, void* arg);

  Api api_;
  OrtAllocator* allocator_;
  OrtKernelContext* context_;
  ec_parallel parallel_;
  OrtStatus* error_ = nullptr;
  void* temporaries_[2] = {};  // for a check, and for a kernel
};

}  // namespace edgecomp::ort

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_SESSION_HOST_H_
