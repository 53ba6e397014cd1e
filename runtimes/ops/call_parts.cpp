#include "ops/call_parts.h"

namespace edgecomp {

bool CheckShape(const OpCall& call, size_t input, const Shape& expected, Message* message) {
  const Tensor& got = call.input(input);
  if (got.absent() || got.shape == expected) return true;
  return message->Refuse(EC_ERR_TENSOR, "%s must be %s %s or absent, got %s", call.schema->inputs[input].name, TypeName(got.type),
                         ShapeText(expected).text, ShapeText(got.shape).text);
}

ec_epilogue EpilogueOf(const OpCall& call, size_t bias, size_t addend, size_t activation, int64_t gated) {
  return {sizeof(ec_epilogue), call.input(bias).as<float>(), call.input(addend).as<float>(),
          static_cast<ec_activation>(call.integer(activation)), static_cast<int32_t>(gated)};
}

ec_conv2d ConvolutionOf(const OpCall& call, const Shape& x, size_t first) {
  const auto ints = [&call, first](size_t place) { return call.attributes[first + place].ints; };
  const int64_t *kernel = ints(0), *strides = ints(1), *pads = ints(2), *dilations = ints(3);
  return {sizeof(ec_conv2d), x.dims[0],    x.dims[1],    x.dims[2], x.dims[3], kernel[0], kernel[1], strides[0],
          strides[1],        dilations[0], dilations[1], pads[0],   pads[1],   pads[2],   pads[3],   ints(4)[0]};
}

bool ConvolutionShape(const OpCall& call, const Shape& x, size_t first, int64_t n, Shape* output, Message* message) {
  if (x.rank != 4) {
    return message->Refuse(EC_ERR_TENSOR, "x must be float32 [batch, channels, height, width], got %s", ShapeText(x).text);
  }
  ec_conv2d conv = ConvolutionOf(call, x, first);
  if (conv.batch < 0) conv.batch = 1;  // no part in the output's size
  if (conv.in_channels < 0) conv.in_channels = 1;
  *output = {{x.dims[0], n, 0, 0}, 4};
  const ec_status status = ec_conv2d_output_size(&conv, &output->dims[2], &output->dims[3]);
  if (status == EC_OK) return true;
  return message->Refuse(status, "%s; got x of shape %s, %s", ec_status_message(status), ShapeText(x).text, FactorText(call).text);
}

}  // namespace edgecomp
