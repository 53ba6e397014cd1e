#include "ops/call.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace edgecomp {
namespace {

// Appends to a text of `size` bytes; what does not fit is left out.
class Text {
 public:
  Text(char* text, size_t size) : text_(text), size_(size) { text_[0] = '\0'; }
  __attribute__((format(printf, 2, 3))) void Add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int wanted = std::vsnprintf(text_ + used_, size_ - used_, format, arguments);
    va_end(arguments);
    if (wanted > 0) used_ = used_ + static_cast<size_t>(wanted) < size_ ? used_ + static_cast<size_t>(wanted) : size_ - 1;
  }

 private:
  char* text_;
  size_t size_;
  size_t used_ = 0;
};

}  // namespace

int64_t Shape::Elements(size_t first, size_t last) const {
  int64_t product = 1;
  for (size_t i = first; i < last; ++i) product *= dims[i];
  return product;
}

bool Shape::operator==(const Shape& other) const {
  bool equal = rank == other.rank;
  for (size_t i = 0; equal && i < rank; ++i) equal = dims[i] == other.dims[i];
  return equal;
}

size_t ElementBytes(ec_type type) {
  switch (type) {
    case EC_TYPE_UINT8:
    case EC_TYPE_INT8:
      return 1;
    case EC_TYPE_UINT16:
    case EC_TYPE_FLOAT16:
      return 2;
    case EC_TYPE_FLOAT32:
    case EC_TYPE_INT32:
      return 4;
    case EC_TYPE_INT64:
      return 8;
    case EC_TYPE_NONE:
    case EC_TYPE_OTHER:
      break;
  }
  return 0;
}

ShapeText::ShapeText(const Shape& shape) {
  Text to(text, sizeof(text));
  to.Add("[");
  for (size_t i = 0; i < shape.rank; ++i) to.Add("%s%lld", i > 0 ? ", " : "", static_cast<long long>(shape.dims[i]));
  to.Add("]");
}

bool Message::Refuse(ec_status refused_status, const char* format, ...) {
  status = refused_status;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return false;
}

bool ReadChoice(const AttributeSchema& attribute, const char* text, size_t length, AttributeValue* value, Message* message) {
  char known[256];
  Text names(known, sizeof(known));
  for (size_t i = 0; i < attribute.count; ++i) {
    if (std::strlen(attribute.choices[i]) == length && std::memcmp(attribute.choices[i], text, length) == 0) {
      value->ints[0] = static_cast<int64_t>(i);
      return true;
    }
    names.Add("%s'%s'", i == 0 ? "" : i + 1 == attribute.count ? " or " : ", ", attribute.choices[i]);
  }
  return message->Refuse(EC_ERR_ATTRIBUTE, "the attribute %s must be %s, got '%.*s'", attribute.name, known,
                         static_cast<int>(length < 64 ? length : 64), text);
}

FactorText::FactorText(const OpCall& call) {
  Text to(text, sizeof(text));
  for (size_t i = 0; i < call.schema->factor_attribute_count; ++i) {
    to.Add("%s%s=%lld", i > 0 ? ", " : "", call.schema->attributes[i].name, static_cast<long long>(call.integer(i)));
  }
}

}  // namespace edgecomp
