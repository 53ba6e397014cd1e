#include "runner/tensor.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

constexpr ElementType kTypes[] = {
    {"bool", "|b1", 1},  {"float16", "<f2", 2}, {"float32", "<f4", 4}, {"float64", "<f8", 8},
    {"int8", "|i1", 1},  {"int16", "<i2", 2},   {"int32", "<i4", 4},   {"int64", "<i8", 8},
    {"uint8", "|u1", 1}, {"uint16", "<u2", 2},  {"uint32", "<u4", 4},  {"uint64", "<u8", 8},
};

const ElementType* ElementTypeOf(const std::string& descr) {
  for (const ElementType& type : kTypes) {
    if (descr == type.descr) return &type;
  }
  return nullptr;
}

// The text of a header's entry from after its key to `end`.
std::string Entry(const std::string& header, const std::string& key, char begin, char end) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) return "";
  const size_t first = header.find(begin, at + key.size() + 3);
  const size_t last = header.find(end, first + 1);
  return first == std::string::npos || last == std::string::npos ? "" : header.substr(first + 1, last - first - 1);
}

}  // namespace

const ElementType* ElementTypeNamed(const std::string& name) {
  for (const ElementType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

std::string DescribeTensor(const ElementType& type, const std::vector<int64_t>& shape) {
  std::string text = std::string(type.name) + "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

std::string Tensor::Describe() const { return DescribeTensor(*type, shape); }

Tensor ReadNpy(const std::string& name, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string who = "input " + name + ": " + path + " must be a .npy file of version 1.0, ";
  constexpr size_t kPreamble = 10;
  if (content.size() < kPreamble || std::memcmp(content.data(), "\x93NUMPY\x01\x00", 8) != 0) {
    Fail(ErrorClass::kConfig, who + "and is missing or none");
  }
  const size_t length = static_cast<uint8_t>(content[8]) | static_cast<size_t>(static_cast<uint8_t>(content[9])) << 8;
  const std::string header = content.substr(kPreamble, length);
  Tensor tensor{name, ElementTypeOf(Entry(header, "descr", '\'', '\'')), {}, {}};
  if (tensor.type == nullptr || header.find("'fortran_order': False") == std::string::npos) {
    Fail(ErrorClass::kConfig, who + "in C order and of a plain number type, got " + header);
  }
  size_t bytes = tensor.type->bytes;
  const std::string shape = Entry(header, "shape", '(', ')');
  for (const char* at = shape.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long long size = std::strtoll(at, &end, 10);
    if (end == at) break;
    tensor.shape.push_back(size);
    bytes *= static_cast<size_t>(size);
    at = *end == ',' ? end + 1 : end;
  }
  if (content.size() < kPreamble + length || content.size() - kPreamble - length != bytes) {
    Fail(ErrorClass::kConfig, who + "with " + std::to_string(bytes) + " bytes of data for " + tensor.Describe());
  }
  tensor.data.assign(content.begin() + static_cast<std::ptrdiff_t>(kPreamble + length), content.end());
  return tensor;
}

std::string NpyHeader(const TensorView& tensor) {
  std::string shape;
  for (const int64_t size : tensor.shape) shape += std::to_string(size) + ",";
  std::string header = std::string("{'descr': '") + tensor.type->descr + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr size_t kPreamble = 10, kAlignment = 64;
  header.append(kAlignment - (kPreamble + header.size() + 1) % kAlignment, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  return file + header;
}

void WriteNpy(const std::string& path, const TensorView& tensor) {
  const std::string header = NpyHeader(tensor);
  std::FILE* file = std::fopen(path.c_str(), "wb");
  bool written = file != nullptr;
  written = written && std::fwrite(header.data(), 1, header.size(), file) == header.size();
  written = written && std::fwrite(tensor.data, 1, tensor.bytes, file) == tensor.bytes;
  const bool closed = file != nullptr && std::fclose(file) == 0;
  if (!written || !closed) {
    Fail(ErrorClass::kDevice, "output " + tensor.name + " cannot be written to " + path + ": " + std::strerror(errno));
  }
}

}  // namespace edgecomp::runner
