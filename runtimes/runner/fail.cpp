#include "runner/fail.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "runner/json.h"

namespace edgecomp::runner {
namespace {

int answer_descriptor = STDOUT_FILENO;

struct ErrorName {
  const char* name;
  int exit_code;
};

// Names and exit codes of edgecomp/errors.py; tests/bench/test_runner.py holds the two together.
constexpr ErrorName kErrors[] = {
    {"ConfigError", 3}, {"ModelError", 4}, {"CheckpointError", 7}, {"RuntimeUnavailableError", 9}, {"DeviceError", 12},
};

}  // namespace

void OpenAnswer() {
  answer_descriptor = dup(STDOUT_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
}

void WritePart(const std::string& json) {
  size_t written = 0;
  while (written < json.size()) {
    const ssize_t count = write(answer_descriptor, json.data() + written, json.size() - written);
    if (count <= 0) {
      std::perror("edgecomp-run: the answer cannot be written");
      std::_Exit(1);
    }
    written += static_cast<size_t>(count);
  }
}

void WriteAnswer(const std::string& json) {
  WritePart(json);
  close(answer_descriptor);
}

void Fail(ErrorClass error, const std::string& message) {
  const ErrorName& kind = kErrors[static_cast<size_t>(error)];
  Json json;
  json.BeginObject();
  json.Member("error", kind.name);
  json.Member("message", message);
  json.EndObject();
  WriteAnswer(json.text());
  // Not exit(): a runtime's own clean-up may hang or crash after its error, and would hide it.
  std::_Exit(kind.exit_code);
}

}  // namespace edgecomp::runner
