#include "adapters/executorch/factor_arguments.h"

#include "adapters/executorch/checked_factors.h"
#include "kernels/lut/lut_layout.h"

namespace edgecomp::et {
namespace {

enum Array { kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex };

constexpr struct {
  const char* name;
  ScalarType type;
} kArrays[kFactorTensors] = {{"codes", ScalarType::Byte},  {"codebooks", ScalarType::Char},  {"tile_book", ScalarType::UInt16},
                             {"scales", ScalarType::Char}, {"row_scale", ScalarType::Float}, {"row_index", ScalarType::Int}};

bool FailWithFactor(const Arguments& arguments, ec_status status, const ec_lut_factor& factor) {
  return arguments.Fail(Error::InvalidArgument, "%s; got N=%lld, K=%lld, bits=%d, block_size=%lld, %lld tiles, %lld codebooks%s",
                        ec_status_message(status), static_cast<long long>(factor.n), static_cast<long long>(factor.k), factor.bits,
                        static_cast<long long>(factor.block_size), static_cast<long long>(factor.tiles),
                        static_cast<long long>(factor.books), factor.row_index != nullptr ? ", row_index" : "");
}

bool HasShape(const Tensor& tensor, const int64_t* dims, size_t rank) {
  if (static_cast<size_t>(tensor.dim()) != rank) return false;
  for (size_t i = 0; i < rank; ++i) {
    if (tensor.sizes()[i] != dims[i]) return false;
  }
  return true;
}

bool CheckShapes(const Arguments& arguments, const Tensor* const (&arrays)[kFactorTensors], const ec_lut_factor& factor) {
  LutLayout layout;
  const ec_status status = MakeLutLayout(factor, &layout);
  if (status != EC_OK) return FailWithFactor(arguments, status, factor);
  const struct {
    int64_t dims[5];
    size_t rank;
  } expected[kFactorTensors] = {
      {{layout.tiles, layout.spans, layout.planes, kTileRows, 4}, 5},
      {{factor.books, layout.entries}, 2},
      {{layout.tiles}, 1},
      {{layout.tiles, layout.blocks, kTileRows}, 3},
      {{layout.tiles, kTileRows}, 2},
      {{layout.tiles * kTileRows}, 1},
  };
  for (size_t i = 0; i < kFactorTensors; ++i) {
    if (arrays[i] == nullptr || HasShape(*arrays[i], expected[i].dims, expected[i].rank)) continue;
    Shape shape = {};
    shape.rank = expected[i].rank;
    for (size_t axis = 0; axis < shape.rank; ++axis) shape.dims[axis] = static_cast<SizesType>(expected[i].dims[axis]);
    return arguments.Fail(Error::InvalidArgument, "%s with N=%lld, K=%lld, bits=%d, block_size=%lld must have shape %s, got %s",
                          kArrays[i].name, static_cast<long long>(factor.n), static_cast<long long>(factor.k), factor.bits,
                          static_cast<long long>(factor.block_size), ShapeText(shape).text, ShapeText(*arrays[i]).text);
  }
  return true;
}

// All values of a factor that is met for the first time; of a known one, what keeps a kernel inside the arrays.
bool CheckValues(const Arguments& arguments, const ec_lut_factor& factor) {
  const uint64_t fingerprint = FingerprintOf(factor);
  const bool known = WasChecked(fingerprint);
  void* scratch = nullptr;
  if (!known && factor.row_index != nullptr && !arguments.AllocateTemporary(static_cast<size_t>(factor.n), &scratch)) return false;
  const ec_status status = known ? ec_lut_check_bounds(&factor) : ec_lut_check(&factor, static_cast<uint8_t*>(scratch));
  if (status != EC_OK) return FailWithFactor(arguments, status, factor);
  if (!known) RememberChecked(fingerprint);
  return true;
}

}  // namespace

bool ReadFactor(const Arguments& arguments, size_t first_integer, ec_lut_factor* factor) {
  int64_t bits = 0;
  if (!arguments.ReadInt(first_integer, "N", &factor->n) || !arguments.ReadInt(first_integer + 1, "K", &factor->k) ||
      !arguments.ReadInt(first_integer + 2, "bits", &bits) ||
      !arguments.ReadInt(first_integer + 3, "block_size", &factor->block_size)) {
    return false;
  }
  if (bits < 1 || bits > 8) {
    return arguments.Fail(Error::InvalidArgument, "%s, got bits=%lld", ec_status_message(EC_ERR_BITS),
                          static_cast<long long>(bits));
  }
  factor->bits = static_cast<int32_t>(bits);

  const Tensor* arrays[kFactorTensors] = {};
  for (size_t i = 0; i < kFactorTensors; ++i) {
    const size_t index = kFirstFactorArgument + i;
    const bool read = i == kRowIndex ? arguments.ReadOptionalTensor(index, kArrays[i].name, kArrays[i].type, &arrays[i])
                                     : arguments.ReadTensor(index, kArrays[i].name, kArrays[i].type, &arrays[i]);
    if (!read) return false;
  }
  if (arrays[kCodes]->dim() != 5 || arrays[kCodebooks]->dim() != 2) {
    return arguments.Fail(Error::InvalidArgument, "codes must be [T, S, P, 16, 4] and codebooks [B, 2**bits], got %s and %s",
                          ShapeText(*arrays[kCodes]).text, ShapeText(*arrays[kCodebooks]).text);
  }
  factor->tiles = arrays[kCodes]->size(0);
  factor->books = arrays[kCodebooks]->size(0);
  factor->codes = arrays[kCodes]->const_data_ptr<uint8_t>();
  factor->codebooks = arrays[kCodebooks]->const_data_ptr<int8_t>();
  factor->tile_book = arrays[kTileBook]->const_data_ptr<uint16_t>();
  factor->scales = arrays[kScales]->const_data_ptr<int8_t>();
  factor->row_scale = arrays[kRowScale]->const_data_ptr<float>();
  factor->row_index = arrays[kRowIndex] == nullptr ? nullptr : arrays[kRowIndex]->const_data_ptr<int32_t>();
  if (!CheckShapes(arguments, arrays, *factor)) return false;

  return CheckValues(arguments, *factor);
}

}  // namespace edgecomp::et
