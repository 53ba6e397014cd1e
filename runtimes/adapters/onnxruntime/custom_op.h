// An operator of ours as one of ONNX Runtime's custom operators.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_

#include "adapters/onnxruntime/ort_abi.h"
#include "ops/op.h"

namespace edgecomp::ort {

using Api = const void* const*;

// What ONNX Runtime asks of an operator.
struct OpDescription : OrtCustomOp {
  const Op* op;
  Api api;  // for the callbacks that are not handed one
};

// Fills in the description. No exception can pass the callbacks: none is thrown anywhere in this library.
void DescribeOp(const Op& op, Api api, OpDescription* description);

}  // namespace edgecomp::ort

// Ends the function with the status, where there is one.
#define EC_ORT_RETURN_IF_ERROR(expression)              \
  do {                                                  \
    OrtStatus* const ec_ort_status = (expression);      \
    if (ec_ort_status != nullptr) return ec_ort_status; \
  } while (false)

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_CUSTOM_OP_H_
