// Small text files of the kernel's: /proc and /sys.
#ifndef EDGECOMP_RUNNER_TEXT_FILE_H_
#define EDGECOMP_RUNNER_TEXT_FILE_H_

#include <optional>
#include <string>
#include <vector>

namespace edgecomp::runner {

// The file's contents without white space at the end; nothing where it cannot be read.
std::optional<std::string> ReadText(const std::string& path);
std::optional<long long> ReadNumber(const std::string& path);

// Paths that match the pattern, sorted.
std::vector<std::string> Glob(const std::string& pattern);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_TEXT_FILE_H_
