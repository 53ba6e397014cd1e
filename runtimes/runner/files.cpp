#include "runner/files.h"

#include <glob.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace edgecomp::runner {

std::optional<std::string> ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return std::nullopt;
  const size_t last = text.find_last_not_of(std::string(" \n\t\0", 4));  // the device tree's texts end with a zero byte
  text.resize(last == std::string::npos ? 0 : last + 1);
  return text;
}

std::optional<long long> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadText(path);
  if (!text) return std::nullopt;
  char* end = nullptr;
  const long long number = std::strtoll(text->c_str(), &end, 0);
  return end == text->c_str() ? std::nullopt : std::optional<long long>(number);
}

std::vector<std::string> Glob(const std::string& pattern) {
  glob_t found = {};
  std::vector<std::string> paths;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  globfree(&found);
  return paths;
}

bool WriteFile(const std::string& path, std::initializer_list<std::string_view> parts) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return false;
  bool written = true;
  for (const std::string_view part : parts) written = written && std::fwrite(part.data(), 1, part.size(), file) == part.size();
  return std::fclose(file) == 0 && written;
}

}  // namespace edgecomp::runner
