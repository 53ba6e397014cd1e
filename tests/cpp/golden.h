// Arrays of the golden vectors, which tests/vectors/make_vectors.py writes, by the reader that the measuring program has for its
// inputs.
#ifndef EDGECOMP_TESTS_CPP_GOLDEN_H_
#define EDGECOMP_TESTS_CPP_GOLDEN_H_

#include <string>

#include "runner/npy.h"

namespace edgecomp::test {

using Array = runner::Tensor;

// False where the file is missing or of another kind.
inline bool ReadArray(const std::string& path, Array* array) { return runner::ReadNpy(path, array).empty(); }

template <class T>
const T* As(const Array& array) {
  return reinterpret_cast<const T*>(array.data.data());
}

}  // namespace edgecomp::test

#endif  // EDGECOMP_TESTS_CPP_GOLDEN_H_
