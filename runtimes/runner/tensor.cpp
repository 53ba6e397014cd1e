#include "runner/tensor.h"

namespace edgecomp::runner {
namespace {

constexpr ElementType kTypes[] = {
    {"bool", "|b1", 1},  {"float16", "<f2", 2}, {"float32", "<f4", 4}, {"float64", "<f8", 8},
    {"int8", "|i1", 1},  {"int16", "<i2", 2},   {"int32", "<i4", 4},   {"int64", "<i8", 8},
    {"uint8", "|u1", 1}, {"uint16", "<u2", 2},  {"uint32", "<u4", 4},  {"uint64", "<u8", 8},
};

}  // namespace

const ElementType* ElementTypeNamed(const std::string& name) {
  for (const ElementType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

const ElementType* ElementTypeOfDescr(const std::string& descr) {
  for (const ElementType& type : kTypes) {
    if (descr == type.descr) return &type;
  }
  return nullptr;
}

std::string DescribeTensor(const ElementType& type, const std::vector<int64_t>& shape) {
  std::string text = std::string(type.name) + "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

std::string Tensor::Describe() const { return DescribeTensor(*type, shape); }

}  // namespace edgecomp::runner
