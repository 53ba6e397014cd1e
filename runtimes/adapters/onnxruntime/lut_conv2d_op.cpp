// ai.edgecomp::LutConv2D
#include "adapters/onnxruntime/lut_ops.h"

namespace edgecomp::ort {
namespace {

// The attributes that hold several integers.
struct ConvAttributes {
  int64_t kernel[2], strides[2], pads[4], dilations[2], group;

  // The geometry for an x of a shape [batch, channels, height, width].
  ec_conv2d For(const int64_t* x) const {
    return {x[0],         x[1],         x[2],    x[3],    kernel[0], kernel[1], strides[0], strides[1],
            dilations[0], dilations[1], pads[0], pads[1], pads[2],   pads[3],   group};
  }
};

// Reads all attributes by `ints(name, values, count)`, which returns a status.
template <class ReadInts>
OrtStatus* ReadConvAttributes(const ReadInts& ints, ConvAttributes* attributes) {
  EC_ORT_RETURN_IF_ERROR(ints("kernel_shape", attributes->kernel, size_t{2}));
  EC_ORT_RETURN_IF_ERROR(ints("strides", attributes->strides, size_t{2}));
  EC_ORT_RETURN_IF_ERROR(ints("pads", attributes->pads, size_t{4}));
  return ints("dilations", attributes->dilations, size_t{2});
}

class LutConv2D : public LutKernel {
 public:
  static constexpr const char* kName = "LutConv2D";
  static constexpr size_t kBiasInput = kFirstFactorInput + kFactorInputs;
  static constexpr size_t kInputs = kBiasInput + 1;
  static constexpr ElementType kFirstInputType = kFloat;

  OrtStatus* Initialize(const OrtKernelInfo* info) {
    EC_ORT_RETURN_IF_ERROR(InitializeBias(info, kBiasInput));
    EC_ORT_RETURN_IF_ERROR(ReadCompute(info, &compute_));
    EC_ORT_RETURN_IF_ERROR(GetIntAttribute::Call(api_, info, "group", &attributes_.group));
    const auto ints = [this, info](const char* attribute, int64_t* values, size_t count) -> OrtStatus* {
      size_t found = count;
      OrtStatus* status = GetIntsAttribute::Call(api_, info, attribute, values, &found);
      if (status == nullptr && found == count) return nullptr;
      if (status != nullptr) ReleaseStatus::Call(api_, status);
      return Fail(api_, kInvalidArgument, name_, "the attribute %s must hold %zu integers, got %zu", attribute, count, found);
    };
    return ReadConvAttributes(ints, &attributes_);
  }

  OrtStatus* Compute(OrtKernelContext* context) const {
    ec_lut_factor factor;
    EC_ORT_RETURN_IF_ERROR(factor_inputs_.Get(context, &factor));
    Tensor x;
    EC_ORT_RETURN_IF_ERROR(ReadInput(api_, name_, context, 0, &x));
    if (x.shape.rank != 4) {
      return Fail(api_, kInvalidArgument, name_, "x must be float32 [batch, channels, height, width], got %s",
                  ShapeText(x.shape).text);
    }
    const float* bias = nullptr;
    EC_ORT_RETURN_IF_ERROR(ReadBias(context, kBiasInput, factor.n, &bias));
    const ec_conv2d conv = attributes_.For(x.shape.dims);
    Shape shape = {{conv.batch, factor.n, 0, 0}, 4};
    ec_status status = ec_conv2d_output_size(&conv, &shape.dims[2], &shape.dims[3]);
    const SessionThreads threads(api_, context);
    size_t bytes = 0;
    if (status == EC_OK) status = ec_lut_conv2d_workspace_bytes(&factor, &conv, compute_, threads.parallel(), &bytes);
    if (status != EC_OK) return FailWith(status, factor, x.shape);
    float* y = nullptr;
    EC_ORT_RETURN_IF_ERROR(CreateOutput(api_, context, shape, &y));
    Scratch workspace(api_, allocator_);
    EC_ORT_RETURN_IF_ERROR(workspace.Allocate(bytes));
    status = ec_lut_conv2d(&factor, &conv, static_cast<const float*>(x.data), bias, y, compute_, threads.parallel(),
                           workspace.data(), bytes);
    return status == EC_OK ? nullptr : FailWith(status, factor, x.shape);
  }

  static OrtStatus* InferShape(Api api, OrtShapeInferContext* context) {
    InferredShape shape;
    if (!ReadInferenceInput(api, context, &shape) || shape.shape.rank != 4) return nullptr;
    ConvAttributes attributes;
    const auto ints = [api, context](const char* attribute, int64_t* values, size_t count) {
      return ReadInferenceInts(api, context, attribute, values, count);
    };
    EC_ORT_RETURN_IF_ERROR(ReadConvAttributes(ints, &attributes));
    attributes.group = 1;  // no part in the output's size
    int64_t* dims = shape.shape.dims;
    const int64_t x[4] = {1, 1, dims[2], dims[3]};
    const ec_conv2d conv = attributes.For(x);
    if (ec_conv2d_output_size(&conv, &dims[2], &dims[3]) != EC_OK) return nullptr;  // an open height or width, above all
    EC_ORT_RETURN_IF_ERROR(ReadInferenceInt(api, context, "N", &dims[1]));
    for (int axis = 1; axis < 4; ++axis) shape.symbols[axis] = "";
    return SetInferenceOutput(api, context, shape);
  }

 private:
  ec_compute compute_ = EC_COMPUTE_INT8;
  ConvAttributes attributes_ = {};
};

}  // namespace

void DescribeLutConv2D(Api api, OpDescription* op) { DescribeKernel<LutConv2D>(api, op); }

}  // namespace edgecomp::ort
