// Named arrays in and out of a model.
#ifndef EDGECOMP_RUNNER_TENSOR_H_
#define EDGECOMP_RUNNER_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace edgecomp::runner {

// An element type by its numpy names, such as "float32" and "<f4".
struct ElementType {
  const char* name;
  const char* descr;
  size_t bytes;
};

// The types that a model's inputs and outputs may have: bool, float16 to 64, int8 to 64, uint8 to 64. Null for another name.
const ElementType* ElementTypeNamed(const std::string& name);
const ElementType* ElementTypeOfDescr(const std::string& descr);

// One axis of an input or output: `size` is -1 where it is only known by name, or not at all.
struct Dimension {
  int64_t size;
  std::string name;
};

struct TensorSpec {
  std::string name;
  const ElementType* type;
  std::vector<Dimension> shape;
};

struct Tensor {
  std::string name;
  const ElementType* type;
  std::vector<int64_t> shape;
  std::vector<uint8_t> data;  // C order, little endian

  std::string Describe() const;  // "float32[1, 128]"
};

// The same without owning the data, which the backend keeps until its next run.
struct TensorView {
  std::string name;
  const ElementType* type;
  std::vector<int64_t> shape;
  const void* data;
  size_t bytes;
};

std::string DescribeTensor(const ElementType& type, const std::vector<int64_t>& shape);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_TENSOR_H_
