// Reads .npy files of version 1.0, C-contiguous and little-endian: what the golden vectors are made of.
#ifndef EDGECOMP_TESTS_CPP_NPY_H_
#define EDGECOMP_TESTS_CPP_NPY_H_

#include <cstdint>
#include <string>
#include <vector>

namespace edgecomp::test {

struct Npy {
  std::string dtype;  // "<f2", "<f4", "|u1", ...
  std::vector<int64_t> shape;
  std::vector<uint8_t> bytes;

  template <class T>
  const T* As() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
};

// False where the file is missing or of another kind.
bool ReadNpy(const std::string& path, Npy* npy);

// The value of a float16, given as its bits; C++17 has no such type.
float WidenFloat16(uint16_t bits);

}  // namespace edgecomp::test

#endif  // EDGECOMP_TESTS_CPP_NPY_H_
