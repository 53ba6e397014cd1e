// Tensors, messages and scratch memory on ONNX Runtime's C ABI.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_TENSOR_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_TENSOR_H_

#include "adapters/onnxruntime/ort_abi.h"

namespace edgecomp::ort {

using Api = const void* const*;

constexpr size_t kMaxRank = 16;

struct Shape {
  int64_t dims[kMaxRank];
  size_t rank;

  // The product of the dimensions from `first` to before `last`; tensors that exist do not overflow it.
  int64_t Elements(size_t first, size_t last) const;
  int64_t Elements() const { return Elements(0, rank); }
  bool operator==(const Shape& other) const;
};

// "[2, 3]"
struct ShapeText {
  explicit ShapeText(const Shape& shape);
  char text[24 * kMaxRank];
};

struct Tensor {
  int type;  // ElementType
  Shape shape;
  void* data;
};

const char* ElementTypeName(int type);

// Who speaks in an error message.
struct NodeName {
  const char* op;
  char node[128];
};

// A status "LutMatMul node 'name': ...".
__attribute__((format(printf, 4, 5))) OrtStatus* Fail(Api api, ErrorCode code, const NodeName& name, const char* format, ...);

// Reads type, shape and data of a value. Null values come back with no elements: absent optional inputs.
OrtStatus* ReadTensor(Api api, const NodeName& name, const OrtValue* value, Tensor* tensor);

// Input `index` of a running node; one that the node does not have counts as absent.
OrtStatus* ReadInput(Api api, const NodeName& name, const OrtKernelContext* context, size_t index, Tensor* tensor);

OrtStatus* CreateOutput(Api api, OrtKernelContext* context, const Shape& shape, float** data);

// Memory from the session's arena, given back at the end of the scope.
class Scratch {
 public:
  Scratch(Api api, OrtAllocator* allocator) : api_(api), allocator_(allocator) {}
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  OrtStatus* Allocate(size_t bytes);
  void* data() const { return data_; }

 private:
  Api api_;
  OrtAllocator* allocator_;
  void* data_ = nullptr;
};

}  // namespace edgecomp::ort

// Ends the function with the status, where there is one.
#define EC_ORT_RETURN_IF_ERROR(expression)              \
  do {                                                  \
    OrtStatus* const ec_ort_status = (expression);      \
    if (ec_ort_status != nullptr) return ec_ort_status; \
  } while (false)

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_TENSOR_H_
