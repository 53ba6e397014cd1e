// ai.edgecomp::LutMatMul
#include "adapters/onnxruntime/lut_ops.h"

namespace edgecomp::ort {
namespace {

class LutMatMul : public LutKernel {
 public:
  static constexpr const char* kName = "LutMatMul";
  static constexpr size_t kBiasInput = kFirstFactorInput + kFactorInputs;
  static constexpr size_t kInputs = kBiasInput + 1;
  static constexpr ElementType kFirstInputType = kFloat;

  OrtStatus* Initialize(const OrtKernelInfo* info) {
    EC_ORT_RETURN_IF_ERROR(InitializeBias(info, kBiasInput));
    return ReadCompute(info, &compute_);
  }

  OrtStatus* Compute(OrtKernelContext* context) const {
    ec_lut_factor factor;
    EC_ORT_RETURN_IF_ERROR(factor_inputs_.Get(context, &factor));
    Tensor x;
    EC_ORT_RETURN_IF_ERROR(ReadInput(api_, name_, context, 0, &x));
    if (x.shape.rank < 1 || x.shape.dims[x.shape.rank - 1] != factor.k) {
      return Fail(api_, kInvalidArgument, name_, "x must be float32 [..., %lld], got %s", static_cast<long long>(factor.k),
                  ShapeText(x.shape).text);
    }
    const float* bias = nullptr;
    EC_ORT_RETURN_IF_ERROR(ReadBias(context, kBiasInput, factor.n, &bias));
    Shape shape = x.shape;
    shape.dims[shape.rank - 1] = factor.n;
    float* y = nullptr;
    EC_ORT_RETURN_IF_ERROR(CreateOutput(api_, context, shape, &y));

    const SessionThreads threads(api_, context);
    const int64_t rows = x.shape.Elements(0, x.shape.rank - 1);
    size_t bytes = 0;
    ec_status status = ec_lut_matmul_workspace_bytes(&factor, rows, compute_, threads.parallel(), &bytes);
    if (status != EC_OK) return FailWith(status, factor, x.shape);
    Scratch workspace(api_, allocator_);
    EC_ORT_RETURN_IF_ERROR(workspace.Allocate(bytes));
    status = ec_lut_matmul(&factor, static_cast<const float*>(x.data), rows, bias, y, compute_, threads.parallel(),
                           workspace.data(), bytes);
    return status == EC_OK ? nullptr : FailWith(status, factor, x.shape);
  }

  static OrtStatus* InferShape(Api api, OrtShapeInferContext* context) {
    InferredShape shape;
    if (!ReadInferenceInput(api, context, &shape) || shape.shape.rank == 0) return nullptr;
    const size_t last = shape.shape.rank - 1;
    shape.symbols[last] = "";
    EC_ORT_RETURN_IF_ERROR(ReadInferenceInt(api, context, "N", &shape.shape.dims[last]));
    return SetInferenceOutput(api, context, shape);
  }

 private:
  ec_compute compute_ = EC_COMPUTE_INT8;
};

}  // namespace

void DescribeLutMatMul(Api api, OpDescription* op) { DescribeKernel<LutMatMul>(api, op); }

}  // namespace edgecomp::ort
