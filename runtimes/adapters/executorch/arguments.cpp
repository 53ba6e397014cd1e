#include "adapters/executorch/arguments.h"

#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/core/exec_aten/util/scalar_type_util.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

#include <cstdarg>
#include <cstdio>

namespace edgecomp::et {
namespace {

bool IsContiguous(const Tensor& tensor) {
  const auto order = tensor.dim_order();
  return executorch::runtime::is_contiguous_dim_order(order.data(), order.size());
}

}  // namespace

Shape ShapeOf(const Tensor& tensor) {
  Shape shape = {};
  shape.rank = static_cast<size_t>(tensor.dim());  // the runtime holds it to kMaxRank
  for (size_t i = 0; i < shape.rank; ++i) shape.dims[i] = tensor.sizes()[i];
  return shape;
}

ShapeText::ShapeText(const Shape& shape) {
  size_t used = 0;
  text[used++] = '[';
  for (size_t i = 0; i < shape.rank; ++i) {
    used += static_cast<size_t>(
        std::snprintf(text + used, sizeof(text) - used, "%s%d", i == 0 ? "" : ", ", static_cast<int>(shape.dims[i])));
  }
  std::snprintf(text + used, sizeof(text) - used, "]");
}

const char* TypeName(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::UInt16:
      return "uint16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Float:
      return "float32";
    default:
      return executorch::runtime::toString(type);
  }
}

bool Arguments::RequireCount(size_t count) const {
  if (stack_.size() >= count) return true;
  return Fail(Error::InvalidProgram, "a call must have %zu arguments, got %zu", count, stack_.size());
}

bool Arguments::ReadInt(size_t index, const char* name, int64_t* value) const {
  if (!stack_[index]->isInt()) return Fail(Error::InvalidType, "%s must be an integer", name);
  *value = stack_[index]->toInt();
  return true;
}

bool Arguments::ReadInts(size_t index, const char* name, int64_t* values, size_t count) const {
  if (!stack_[index]->isIntList()) return Fail(Error::InvalidType, "%s must be a list of integers", name);
  const auto list = stack_[index]->payload.copyable_union.as_int_list_ptr->tryGet();
  if (!list.ok()) return Fail(Error::InvalidType, "%s must be a list of integers", name);
  if (list->size() != count) return Fail(Error::InvalidArgument, "%s must hold %zu integers, got %zu", name, count, list->size());
  for (size_t i = 0; i < count; ++i) values[i] = (*list)[i];
  return true;
}

bool Arguments::ReadCompute(size_t index, ec_compute* compute) const {
  if (!stack_[index]->isString()) return Fail(Error::InvalidType, "compute must be a string");
  const std::string_view text = stack_[index]->toString();
  if (text != "int8" && text != "float") {
    return Fail(Error::InvalidArgument, "compute must be 'int8' or 'float', got '%.*s'", static_cast<int>(text.size()),
                text.data());
  }
  *compute = text == "int8" ? EC_COMPUTE_INT8 : EC_COMPUTE_FLOAT;
  return true;
}

bool Arguments::ReadTensor(size_t index, const char* name, ScalarType type, const Tensor** tensor) const {
  if (!stack_[index]->isTensor()) return Fail(Error::InvalidType, "%s must be a tensor", name);
  const Tensor& found = stack_[index]->toTensor();
  if (found.scalar_type() != type) {
    return Fail(Error::InvalidArgument, "%s must be %s, got %s %s", name, TypeName(type), TypeName(found.scalar_type()),
                ShapeText(found).text);
  }
  if (!IsContiguous(found)) {
    return Fail(Error::NotSupported, "%s must lie in row-major order, got another order of its dimensions, shape %s", name,
                ShapeText(found).text);
  }
  *tensor = &found;
  return true;
}

bool Arguments::ReadOptionalTensor(size_t index, const char* name, ScalarType type, const Tensor** tensor) const {
  *tensor = nullptr;
  return stack_[index]->isNone() || ReadTensor(index, name, type, tensor);
}

bool Arguments::ReadBias(size_t index, int64_t n, const float** bias) const {
  *bias = nullptr;
  const Tensor* tensor = nullptr;
  if (!ReadOptionalTensor(index, "bias", ScalarType::Float, &tensor)) return false;
  if (tensor == nullptr) return true;
  if (tensor->dim() != 1 || tensor->size(0) != n) {
    return Fail(Error::InvalidArgument, "bias must be float32 [%lld], got %s", static_cast<long long>(n), ShapeText(*tensor).text);
  }
  *bias = tensor->const_data_ptr<float>();
  return true;
}

bool Arguments::ResizeOutput(size_t index, const Shape& shape, float** data) const {
  const Tensor* found = nullptr;
  if (!ReadTensor(index, "the output", ScalarType::Float, &found)) return false;
  Tensor output = *found;
  if (executorch::runtime::resize_tensor(output, {shape.dims, shape.rank}) != Error::Ok) {
    return Fail(Error::InvalidArgument, "the output needs shape %s, and memory is planned for %s: export with larger sizes",
                ShapeText(shape).text, ShapeText(*found).text);
  }
  *data = output.mutable_data_ptr<float>();
  return true;
}

bool Arguments::AllocateTemporary(size_t bytes, void** memory) const {
  *memory = nullptr;
  if (bytes == 0) return true;
  const auto allocated = context_->allocate_temp(bytes);
  if (!allocated.ok()) return Fail(allocated.error(), "no %zu bytes of temporary memory are to be had", bytes);
  *memory = *allocated;
  return true;
}

bool Arguments::Fail(Error error, const char* format, ...) const {
  char message[512];
  va_list values;
  va_start(values, format);
  std::vsnprintf(message, sizeof(message), format, values);
  va_end(values);
  ET_LOG(Error, "%s: %s", op_, message);
  context_->fail(error);
  return false;
}

bool Arguments::FailWith(ec_status status, const ec_lut_factor& factor, const Tensor& input) const {
  return Fail(Error::InvalidArgument, "%s; got argument 0 of shape %s, N=%lld, K=%lld, bits=%d, block_size=%lld",
              ec_status_message(status), ShapeText(input).text, static_cast<long long>(factor.n), static_cast<long long>(factor.k),
              factor.bits, static_cast<long long>(factor.block_size));
}

}  // namespace edgecomp::et
