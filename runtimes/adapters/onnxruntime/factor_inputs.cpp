#include "adapters/onnxruntime/factor_inputs.h"

#include "kernels/lut/lut_layout.h"

namespace edgecomp::ort {
namespace {

enum Array { kCodes, kCodebooks, kTileBook, kScales, kRowScale, kRowIndex };

constexpr struct {
  const char* name;
  ElementType type;
} kArrays[kFactorInputs] = {{"codes", kUint8}, {"codebooks", kInt8},  {"tile_book", kUint16},
                            {"scales", kInt8}, {"row_scale", kFloat}, {"row_index", kInt32}};

bool IsAbsent(const Tensor& tensor) { return tensor.shape.Elements() == 0; }

}  // namespace

OrtStatus* FactorInputs::Initialize(Api api, const NodeName& name, const OrtKernelInfo* info, OrtAllocator* allocator) {
  api_ = api;
  name_ = &name;
  allocator_ = allocator;
  int64_t bits = 0;
  EC_ORT_RETURN_IF_ERROR(GetIntAttribute::Call(api, info, "N", &factor_.n));
  EC_ORT_RETURN_IF_ERROR(GetIntAttribute::Call(api, info, "K", &factor_.k));
  EC_ORT_RETURN_IF_ERROR(GetIntAttribute::Call(api, info, "bits", &bits));
  EC_ORT_RETURN_IF_ERROR(GetIntAttribute::Call(api, info, "block_size", &factor_.block_size));
  if (bits < 1 || bits > 8) {
    return Fail(api, kInvalidArgument, name, "%s, got bits=%lld", ec_status_message(EC_ERR_BITS), static_cast<long long>(bits));
  }
  factor_.bits = static_cast<int32_t>(bits);

  // A node that leaves row_index out, in place of an empty tensor, is taken for one whose row_index is not constant: it runs, and
  // its factor is checked at every call.
  Tensor arrays[kFactorInputs];
  for (size_t i = 0; i < kFactorInputs; ++i) {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    EC_ORT_RETURN_IF_ERROR(GetConstantInput::Call(api, info, kFirstFactorInput + i, &is_constant, &value));
    if (is_constant == 0) return nullptr;
    EC_ORT_RETURN_IF_ERROR(ReadTensor(api, name, value, &arrays[i]));
  }
  EC_ORT_RETURN_IF_ERROR(Bind(arrays, &factor_));
  constant_ = true;
  return nullptr;
}

OrtStatus* FactorInputs::Get(const OrtKernelContext* context, ec_lut_factor* factor) const {
  *factor = factor_;
  if (constant_) return nullptr;
  Tensor arrays[kFactorInputs];
  for (size_t i = 0; i < kFactorInputs; ++i) {
    EC_ORT_RETURN_IF_ERROR(ReadInput(api_, *name_, context, kFirstFactorInput + i, &arrays[i]));
  }
  return Bind(arrays, factor);
}

OrtStatus* FactorInputs::Bind(const Tensor (&arrays)[kFactorInputs], ec_lut_factor* factor) const {
  const Shape& codes = arrays[kCodes].shape;
  const Shape& codebooks = arrays[kCodebooks].shape;
  if (codes.rank != 5 || codebooks.rank != 2) {
    return Fail(api_, kInvalidArgument, *name_, "codes must be [T, S, P, 16, 4] and codebooks [B, 2**bits], got %s and %s",
                ShapeText(codes).text, ShapeText(codebooks).text);
  }
  factor->tiles = codes.dims[0];
  factor->books = codebooks.dims[0];
  factor->codes = static_cast<const uint8_t*>(arrays[kCodes].data);
  factor->codebooks = static_cast<const int8_t*>(arrays[kCodebooks].data);
  factor->tile_book = static_cast<const uint16_t*>(arrays[kTileBook].data);
  factor->scales = static_cast<const int8_t*>(arrays[kScales].data);
  factor->row_scale = static_cast<const float*>(arrays[kRowScale].data);
  factor->row_index = IsAbsent(arrays[kRowIndex]) ? nullptr : static_cast<const int32_t*>(arrays[kRowIndex].data);
  EC_ORT_RETURN_IF_ERROR(CheckShapes(arrays, *factor));

  Scratch scratch(api_, allocator_);
  if (factor->row_index != nullptr) EC_ORT_RETURN_IF_ERROR(scratch.Allocate(static_cast<size_t>(factor->n)));
  const ec_status status = ec_lut_check(factor, static_cast<uint8_t*>(scratch.data()));
  return status == EC_OK ? nullptr : FailWith(status, *factor);
}

OrtStatus* FactorInputs::CheckShapes(const Tensor (&arrays)[kFactorInputs], const ec_lut_factor& factor) const {
  LutLayout layout;
  const ec_status status = MakeLutLayout(factor, &layout);
  if (status != EC_OK) return FailWith(status, factor);
  const Shape expected[kFactorInputs] = {
      {{layout.tiles, layout.spans, layout.planes, kTileRows, 4}, 5},
      {{factor.books, layout.entries}, 2},
      {{layout.tiles}, 1},
      {{layout.tiles, layout.blocks, kTileRows}, 3},
      {{layout.tiles, kTileRows}, 2},
      {{factor.row_index != nullptr ? layout.tiles * kTileRows : 0}, 1},
  };
  for (size_t i = 0; i < kFactorInputs; ++i) {
    const bool may_be_missing = i == kRowIndex && arrays[i].data == nullptr;
    if (may_be_missing || (arrays[i].type == kArrays[i].type && arrays[i].shape == expected[i])) continue;
    return Fail(api_, kInvalidArgument, *name_, "%s with N=%lld, K=%lld, bits=%d, block_size=%lld must be %s %s, got %s %s",
                kArrays[i].name, static_cast<long long>(factor.n), static_cast<long long>(factor.k), factor.bits,
                static_cast<long long>(factor.block_size), ElementTypeName(kArrays[i].type), ShapeText(expected[i]).text,
                ElementTypeName(arrays[i].type), ShapeText(arrays[i].shape).text);
  }
  return nullptr;
}

OrtStatus* FactorInputs::FailWith(ec_status status, const ec_lut_factor& factor) const {
  return Fail(api_, kInvalidArgument, *name_, "%s; got N=%lld, K=%lld, bits=%d, block_size=%lld, %lld tiles, %lld codebooks%s",
              ec_status_message(status), static_cast<long long>(factor.n), static_cast<long long>(factor.k), factor.bits,
              static_cast<long long>(factor.block_size), static_cast<long long>(factor.tiles), static_cast<long long>(factor.books),
              factor.row_index != nullptr ? ", row_index" : "");
}

}  // namespace edgecomp::ort
