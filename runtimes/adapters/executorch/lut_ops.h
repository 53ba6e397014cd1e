// The operators of this library; the arguments of each are those of edgecomp/ops.py, in its order, then the output.
#ifndef EDGECOMP_ADAPTERS_EXECUTORCH_LUT_OPS_H_
#define EDGECOMP_ADAPTERS_EXECUTORCH_LUT_OPS_H_

#include "adapters/executorch/arguments.h"

namespace edgecomp::et {

constexpr const char* kLutMatMul = "edgecomp::lut_matmul.out";
constexpr const char* kLutGather = "edgecomp::lut_gather.out";
constexpr const char* kLutConv2D = "edgecomp::lut_conv2d.out";

void RunLutMatMul(Context& context, Stack stack);
void RunLutGather(Context& context, Stack stack);
void RunLutConv2D(Context& context, Stack stack);

}  // namespace edgecomp::et

#endif  // EDGECOMP_ADAPTERS_EXECUTORCH_LUT_OPS_H_
