// edgecomp::lut_gather.out
#include "adapters/executorch/factor_arguments.h"
#include "adapters/executorch/lut_ops.h"

namespace edgecomp::et {
namespace {

constexpr size_t kFirstInteger = kFirstFactorArgument + kFactorTensors;
constexpr size_t kOutput = kFirstInteger + kFactorIntegers;

}  // namespace

void RunLutGather(Context& context, Stack stack) {
  const Arguments arguments(kLutGather, &context, stack);
  ec_lut_factor factor = {};
  const Tensor* indices = nullptr;
  if (!arguments.RequireCount(kOutput + 1) || !ReadFactor(arguments, kFirstInteger, &factor) ||
      !arguments.ReadTensor(0, "indices", ScalarType::Long, &indices)) {
    return;
  }
  Shape shape = ShapeOf(*indices);
  if (shape.rank == kMaxRank) {
    arguments.Fail(Error::InvalidArgument, "indices must have fewer than %zu dimensions, got %zu", kMaxRank, shape.rank);
    return;
  }
  shape.dims[shape.rank++] = static_cast<SizesType>(factor.k);
  float* y = nullptr;
  if (!arguments.ResizeOutput(kOutput, shape, &y)) return;
  const PoolThreads threads;
  const ec_status status = ec_lut_gather(&factor, indices->const_data_ptr<int64_t>(), indices->numel(), y, threads.parallel());
  if (status != EC_OK) arguments.FailWith(status, factor, *indices);
}

}  // namespace edgecomp::et
