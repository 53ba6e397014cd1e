#include "runner/npy.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace edgecomp::runner {
namespace {

constexpr char kMagic[] = "\x93NUMPY\x01\x00";
constexpr size_t kMagicBytes = 8, kPreamble = 10;  // the magic, and the header's length in two bytes

// The text of a header's entry from after its key to `end`.
std::string Entry(const std::string& header, const std::string& key, char begin, char end) {
  const size_t at = header.find("'" + key + "':");
  if (at == std::string::npos) return "";
  const size_t first = header.find(begin, at + key.size() + 3);
  const size_t last = header.find(end, first + 1);
  return first == std::string::npos || last == std::string::npos ? "" : header.substr(first + 1, last - first - 1);
}

}  // namespace

std::string ReadNpy(const std::string& path, Tensor* tensor) {
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (content.size() < kPreamble || std::memcmp(content.data(), kMagic, kMagicBytes) != 0) {
    return "of version 1.0, and is missing or none";
  }
  const size_t length = static_cast<uint8_t>(content[8]) | static_cast<size_t>(static_cast<uint8_t>(content[9])) << 8;
  const std::string header = content.substr(kPreamble, length);
  tensor->type = ElementTypeOfDescr(Entry(header, "descr", '\'', '\''));
  if (tensor->type == nullptr || header.find("'fortran_order': False") == std::string::npos) {
    return "in C order and of a plain number type, got " + header;
  }
  size_t bytes = tensor->type->bytes;
  const std::string shape = Entry(header, "shape", '(', ')');
  tensor->shape.clear();
  for (const char* at = shape.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long long size = std::strtoll(at, &end, 10);
    if (end == at) break;
    tensor->shape.push_back(size);
    bytes *= static_cast<size_t>(size);
    at = *end == ',' ? end + 1 : end;
  }
  if (content.size() < kPreamble + length || content.size() - kPreamble - length != bytes) {
    return "with " + std::to_string(bytes) + " bytes of data for " + tensor->Describe();
  }
  tensor->data.assign(content.begin() + static_cast<std::ptrdiff_t>(kPreamble + length), content.end());
  return "";
}

std::string NpyHeader(const TensorView& tensor) {
  std::string shape;
  for (const int64_t size : tensor.shape) shape += std::to_string(size) + ",";
  std::string header = std::string("{'descr': '") + tensor.type->descr + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr size_t kAlignment = 64;
  header.append(kAlignment - (kPreamble + header.size() + 1) % kAlignment, ' ');
  header += '\n';
  std::string file(kMagic, kMagicBytes);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  return file + header;
}

}  // namespace edgecomp::runner
