#include "ops/lut_binding.h"

#include "kernels/lut/lut_layout.h"
#include "ops/op_table.h"

namespace edgecomp {
namespace {

bool Bind(const OpCall& call, Factor* bound, Message* message) {
  ec_lut_factor& factor = bound->as<ec_lut_factor>();
  const int64_t bits = call.integer(lut::kBits);
  if (bits < 1 || bits > 8) {
    return message->Refuse(EC_ERR_BITS, "%s, got bits=%lld", ec_status_message(EC_ERR_BITS), static_cast<long long>(bits));
  }
  const Shape& codes = call.array(lut::kCodes).shape;
  const Shape& codebooks = call.array(lut::kCodebooks).shape;
  if (codes.rank != 5 || codebooks.rank != 2) {
    return message->Refuse(EC_ERR_ARRAY, "codes must be [T, S, P, 16, 4] and codebooks [B, 2**bits], got %s and %s",
                           ShapeText(codes).text, ShapeText(codebooks).text);
  }
  factor.size = sizeof(factor);
  factor.bits = static_cast<int32_t>(bits);
  factor.n = call.integer(lut::kN);
  factor.k = call.integer(lut::kK);
  factor.block_size = call.integer(lut::kBlockSize);
  factor.tiles = codes.dims[0];
  factor.books = codebooks.dims[0];
  factor.codes = call.array(lut::kCodes).as<uint8_t>();
  factor.codebooks = call.array(lut::kCodebooks).as<int8_t>();
  factor.tile_book = call.array(lut::kTileBook).as<uint16_t>();
  factor.scales = call.array(lut::kScales).as<int8_t>();
  factor.row_scale = call.array(lut::kRowScale).as<float>();
  factor.row_index = call.array(lut::kRowIndex).as<int32_t>();  // null where it is absent

  LutLayout layout;
  const ec_status status = MakeLutLayout(factor, &layout);
  if (status != EC_OK) return message->Refuse(status, "%s; got %s", ec_status_message(status), FactorText(call).text);
  Shape expected[lut::kArrays];
  expected[lut::kCodes] = {{layout.tiles, layout.spans, layout.planes, kTileRows, 4}, 5};
  expected[lut::kCodebooks] = {{factor.books, layout.entries}, 2};
  expected[lut::kTileBook] = {{layout.tiles}, 1};
  expected[lut::kScales] = {{layout.tiles, layout.blocks, kTileRows}, 3};
  expected[lut::kRowScale] = {{layout.tiles, kTileRows}, 2};
  expected[lut::kRowIndex] = {{layout.tiles * kTileRows}, 1};
  for (size_t i = 0; i < lut::kArrays; ++i) {
    const Tensor& array = call.array(i);
    if (array.absent() || array.shape == expected[i]) continue;
    const InputSchema& declared = call.schema->inputs[1 + i];
    return message->Refuse(EC_ERR_ARRAY, "%s with %s must be %s %s, got %s %s", declared.name, FactorText(call).text,
                           TypeName(declared.type), ShapeText(expected[i]).text, TypeName(array.type), ShapeText(array.shape).text);
  }
  return true;
}

size_t ScratchBytes(const Factor& factor) { return LutOf(factor).row_index == nullptr ? 0 : static_cast<size_t>(LutOf(factor).n); }

ec_status CheckValues(const Factor& factor, void* scratch) { return ec_lut_check(&LutOf(factor), static_cast<uint8_t*>(scratch)); }

ec_status CheckBounds(const Factor& factor) { return ec_lut_check_bounds(&LutOf(factor)); }

}  // namespace

const Binder kLutBinder = {Bind, ScratchBytes, CheckValues, CheckBounds};

}  // namespace edgecomp
