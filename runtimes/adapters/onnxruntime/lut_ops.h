// The operators of this library; the inputs and attributes of each are those of edgecomp/ops.py, in its order.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_LUT_OPS_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_LUT_OPS_H_

#include "adapters/onnxruntime/custom_op.h"

namespace edgecomp::ort {

void DescribeLutMatMul(Api api, OpDescription* op);
void DescribeLutGather(Api api, OpDescription* op);
void DescribeLutConv2D(Api api, OpDescription* op);

}  // namespace edgecomp::ort

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_LUT_OPS_H_
