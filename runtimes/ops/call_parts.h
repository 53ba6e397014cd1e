// Parts of calls that operators of several formats have in common.
#ifndef EDGECOMP_OPS_CALL_PARTS_H_
#define EDGECOMP_OPS_CALL_PARTS_H_

#include "ops/call.h"

namespace edgecomp {

// Whether an optional input is absent or has this shape.
bool CheckShape(const OpCall& call, size_t input, const Shape& expected, Message* message);

inline bool CheckBias(const OpCall& call, size_t input, int64_t n, Message* message) {
  return CheckShape(call, input, {{n}, 1}, message);
}

// What follows the product, by the numbers of its inputs and of its attribute.
ec_epilogue EpilogueOf(const OpCall& call, size_t bias, size_t addend, size_t activation, int64_t gated);

// The status of a kernel's plan as the result of Op::prepare.
inline bool Planned(ec_status status, Message* message) {
  message->status = status;
  return status == EC_OK;
}

// The geometry for an x [batch, channels, height, width], of the attributes kernel_shape (number `first`), strides, pads, dilations
// and group.
ec_conv2d ConvolutionOf(const OpCall& call, const Shape& x, size_t first);

// Op::output_shape of such a convolution to n channels.
bool ConvolutionShape(const OpCall& call, const Shape& x, size_t first, int64_t n, Shape* output, Message* message);

}  // namespace edgecomp

#endif  // EDGECOMP_OPS_CALL_PARTS_H_
