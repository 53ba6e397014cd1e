// ai.edgecomp::LutGather
#include "adapters/onnxruntime/lut_ops.h"

namespace edgecomp::ort {
namespace {

class LutGather : public LutKernel {
 public:
  static constexpr const char* kName = "LutGather";
  static constexpr size_t kInputs = kFirstFactorInput + kFactorInputs;
  static constexpr ElementType kFirstInputType = kInt64;

  OrtStatus* Initialize(const OrtKernelInfo*) { return nullptr; }

  OrtStatus* Compute(OrtKernelContext* context) const {
    ec_lut_factor factor;
    EC_ORT_RETURN_IF_ERROR(factor_inputs_.Get(context, &factor));
    Tensor indices;
    EC_ORT_RETURN_IF_ERROR(ReadInput(api_, name_, context, 0, &indices));
    Shape shape = indices.shape;
    if (shape.rank == kMaxRank) {
      return Fail(api_, kInvalidArgument, name_, "indices must have fewer than %zu dimensions, got %zu", kMaxRank, shape.rank);
    }
    shape.dims[shape.rank++] = factor.k;
    float* y = nullptr;
    EC_ORT_RETURN_IF_ERROR(CreateOutput(api_, context, shape, &y));
    const SessionThreads threads(api_, context);
    const ec_status status =
        ec_lut_gather(&factor, static_cast<const int64_t*>(indices.data), indices.shape.Elements(), y, threads.parallel());
    return status == EC_OK ? nullptr : FailWith(status, factor, indices.shape);
  }

  static OrtStatus* InferShape(Api api, OrtShapeInferContext* context) {
    InferredShape shape;
    if (!ReadInferenceInput(api, context, &shape)) return nullptr;
    const size_t last = shape.shape.rank++;
    shape.symbols[last] = "";
    EC_ORT_RETURN_IF_ERROR(ReadInferenceInt(api, context, "K", &shape.shape.dims[last]));
    return SetInferenceOutput(api, context, shape);
  }
};

}  // namespace

void DescribeLutGather(Api api, OpDescription* op) { DescribeKernel<LutGather>(api, op); }

}  // namespace edgecomp::ort
