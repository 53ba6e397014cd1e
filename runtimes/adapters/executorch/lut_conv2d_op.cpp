// edgecomp::lut_conv2d.out
#include "adapters/executorch/factor_arguments.h"
#include "adapters/executorch/lut_ops.h"

namespace edgecomp::et {
namespace {

constexpr size_t kBias = kFirstFactorArgument + kFactorTensors;
constexpr size_t kFirstInteger = kBias + 1;
constexpr size_t kCompute = kFirstInteger + kFactorIntegers;
constexpr size_t kKernelShape = kCompute + 1;
constexpr size_t kStrides = kKernelShape + 1;
constexpr size_t kPads = kStrides + 1;
constexpr size_t kDilations = kPads + 1;
constexpr size_t kGroup = kDilations + 1;
constexpr size_t kOutput = kGroup + 1;

// The geometry for an x [batch, channels, height, width].
bool ReadGeometry(const Arguments& arguments, const Shape& x, ec_conv2d* conv) {
  int64_t kernel[2], strides[2], pads[4], dilations[2], group;
  if (!arguments.ReadInts(kKernelShape, "kernel_shape", kernel, 2) || !arguments.ReadInts(kStrides, "strides", strides, 2) ||
      !arguments.ReadInts(kPads, "pads", pads, 4) || !arguments.ReadInts(kDilations, "dilations", dilations, 2) ||
      !arguments.ReadInt(kGroup, "group", &group)) {
    return false;
  }
  *conv = {x.dims[0],    x.dims[1],    x.dims[2], x.dims[3], kernel[0], kernel[1], strides[0], strides[1],
           dilations[0], dilations[1], pads[0],   pads[1],   pads[2],   pads[3],   group};
  return true;
}

}  // namespace

void RunLutConv2D(Context& context, Stack stack) {
  const Arguments arguments(kLutConv2D, &context, stack);
  ec_lut_factor factor = {};
  ec_compute compute = EC_COMPUTE_INT8;
  const Tensor* x = nullptr;
  const float* bias = nullptr;
  if (!arguments.RequireCount(kOutput + 1) || !ReadFactor(arguments, kFirstInteger, &factor) ||
      !arguments.ReadCompute(kCompute, &compute) || !arguments.ReadTensor(0, "x", ScalarType::Float, &x) ||
      !arguments.ReadBias(kBias, factor.n, &bias)) {
    return;
  }
  Shape shape = ShapeOf(*x);
  if (shape.rank != 4) {
    arguments.Fail(Error::InvalidArgument, "x must be float32 [batch, channels, height, width], got %s", ShapeText(shape).text);
    return;
  }
  ec_conv2d conv = {};
  if (!ReadGeometry(arguments, shape, &conv)) return;
  int64_t height = 0, width = 0;
  ec_status status = ec_conv2d_output_size(&conv, &height, &width);
  const PoolThreads threads;
  size_t bytes = 0;
  if (status == EC_OK) status = ec_lut_conv2d_workspace_bytes(&factor, &conv, compute, threads.parallel(), &bytes);
  if (status != EC_OK) {
    arguments.FailWith(status, factor, *x);
    return;
  }
  shape.dims[1] = static_cast<SizesType>(factor.n);
  shape.dims[2] = static_cast<SizesType>(height);
  shape.dims[3] = static_cast<SizesType>(width);
  float* y = nullptr;
  void* workspace = nullptr;
  if (!arguments.ResizeOutput(kOutput, shape, &y) || !arguments.AllocateTemporary(bytes, &workspace)) return;
  status = ec_lut_conv2d(&factor, &conv, x->const_data_ptr<float>(), bias, y, compute, threads.parallel(), workspace, bytes);
  if (status != EC_OK) arguments.FailWith(status, factor, *x);
}

}  // namespace edgecomp::et
