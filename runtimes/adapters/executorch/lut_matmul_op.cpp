// edgecomp::lut_matmul.out
#include "adapters/executorch/factor_arguments.h"
#include "adapters/executorch/lut_ops.h"

namespace edgecomp::et {
namespace {

constexpr size_t kBias = kFirstFactorArgument + kFactorTensors;
constexpr size_t kFirstInteger = kBias + 1;
constexpr size_t kCompute = kFirstInteger + kFactorIntegers;
constexpr size_t kOutput = kCompute + 1;

}  // namespace

void RunLutMatMul(Context& context, Stack stack) {
  const Arguments arguments(kLutMatMul, &context, stack);
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
  if (shape.rank < 1 || shape.dims[shape.rank - 1] != factor.k) {
    arguments.Fail(Error::InvalidArgument, "x must be float32 [..., %lld], got %s", static_cast<long long>(factor.k),
                   ShapeText(shape).text);
    return;
  }
  shape.dims[shape.rank - 1] = static_cast<SizesType>(factor.n);
  float* y = nullptr;
  if (!arguments.ResizeOutput(kOutput, shape, &y)) return;

  const PoolThreads threads;
  const int64_t rows = x->numel() / factor.k;
  size_t bytes = 0;
  void* workspace = nullptr;
  ec_status status = ec_lut_matmul_workspace_bytes(&factor, rows, compute, threads.parallel(), &bytes);
  if (status == EC_OK) {
    if (!arguments.AllocateTemporary(bytes, &workspace)) return;
    status = ec_lut_matmul(&factor, x->const_data_ptr<float>(), rows, bias, y, compute, threads.parallel(), workspace, bytes);
  }
  if (status != EC_OK) arguments.FailWith(status, factor, *x);
}

}  // namespace edgecomp::et
