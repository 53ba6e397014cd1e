// A call of an operator as every runtime's adapter hands it over: tensors and attributes in the order of edgecomp/ops.py.
#ifndef EDGECOMP_OPS_CALL_H_
#define EDGECOMP_OPS_CALL_H_

#include <cstddef>
#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

constexpr size_t kMaxRank = EC_MAX_RANK;
constexpr size_t kMaxInputs = 16;
constexpr size_t kMaxAttributes = 24;
constexpr size_t kMaxInts = 4;

struct Shape {
  int64_t dims[kMaxRank];
  size_t rank;

  // The product of the dimensions from `first` to before `last`; tensors that exist do not overflow it.
  int64_t Elements(size_t first, size_t last) const;
  int64_t Elements() const { return Elements(0, rank); }
  bool operator==(const Shape& other) const;
};

// "[2, 3]"
struct ShapeText {
  explicit ShapeText(const Shape& shape);
  char text[24 * kMaxRank];
};

// Elements in row-major order. An optional input that is absent has no type.
struct Tensor {
  ec_type type = EC_TYPE_NONE;
  const void* data = nullptr;
  Shape shape;  // not set where it is absent

  bool absent() const { return type == EC_TYPE_NONE; }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

const char* TypeName(ec_type type);
// Bytes of an element; 0 of none and of other types.
size_t ElementBytes(ec_type type);

// What the table says of an operator: generated as op_table.cpp.
struct InputSchema {
  const char* name;
  ec_type type;
  bool optional;
  const char* shape;  // in symbols, for messages
};
enum class AttributeKind { kInt, kInts, kFloat, kChoice };
struct AttributeSchema {
  const char* name;
  AttributeKind kind;
  size_t count;                // integers of kInts, strings of kChoice
  const char* const* choices;  // the strings; an attribute's value is the index of one
};
struct OpSchema {
  const char* name;
  const char* onnx_name;
  const char* executorch_name;
  const char* executorch_in_place_name;  // of a variant that writes to the first input; null where there is none
  const InputSchema* inputs;             // the first one, the factor's arrays, the others
  size_t input_count;
  size_t array_count;
  const AttributeSchema* attributes;  // the factor's, then the operator's own
  size_t attribute_count;
  size_t factor_attribute_count;
  ec_type output_type;
  size_t in_place;  // the input whose memory the output may take where nobody else reads it; input_count for none

  bool has_in_place() const { return in_place < input_count; }
};

// An integer, some, or the index of a choice; or a float32.
struct AttributeValue {
  int64_t ints[kMaxInts];
  float real;
};

struct OpCall {
  const OpSchema* schema;
  const Tensor* inputs[kMaxInputs];
  const AttributeValue* attributes;

  const Tensor& input(size_t index) const { return *inputs[index]; }
  // An array of the factor, by its number in the format.
  const Tensor& array(size_t number) const { return *inputs[1 + number]; }
  int64_t integer(size_t attribute) const { return attributes[attribute].ints[0]; }
  float real(size_t attribute) const { return attributes[attribute].real; }
};

// Why a call is refused: what must hold and what was got. Empty where the host has a message of its own.
struct Message {
  Message() { text[0] = '\0'; }

  ec_status status = EC_OK;
  char text[1024];

  // Always false.
  __attribute__((format(printf, 3, 4))) bool Refuse(ec_status status, const char* format, ...);
};

// The value of a choice that an adapter read as text. False, with a message, for a text that is not there.
bool ReadChoice(const AttributeSchema& attribute, const char* text, size_t length, AttributeValue* value, Message* message);

// "N=50, K=100, bits=4, block_size=32": the attributes that say the factor.
struct FactorText {
  explicit FactorText(const OpCall& call);
  char text[256];
};

}  // namespace edgecomp

#endif  // EDGECOMP_OPS_CALL_H_
