// Files: the kernel's small texts in /proc and /sys, and what the runner leaves for the host.
#ifndef EDGECOMP_RUNNER_FILES_H_
#define EDGECOMP_RUNNER_FILES_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace edgecomp::runner {

// The file's contents without white space at the end; nothing where it cannot be read.
std::optional<std::string> ReadText(const std::string& path);
std::optional<long long> ReadNumber(const std::string& path);

// Paths that match the pattern, sorted.
std::vector<std::string> Glob(const std::string& pattern);

// Writes the parts one after another; false, with errno set, where they cannot all be written.
bool WriteFile(const std::string& path, std::initializer_list<std::string_view> parts);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_FILES_H_
