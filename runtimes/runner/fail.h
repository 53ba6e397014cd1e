// The one way in which the runner gives up: an answer that names the error's class and says what must hold.
#ifndef EDGECOMP_RUNNER_FAIL_H_
#define EDGECOMP_RUNNER_FAIL_H_

#include <string>

namespace edgecomp::runner {

// A class of edgecomp/errors.py, which raises it again on the host.
enum class ErrorClass { kConfig, kModel, kCheckpoint, kRuntimeUnavailable, kDevice };

// Writes {"error": class, "message": ...} as the answer and ends the process with the class's exit code.
[[noreturn]] void Fail(ErrorClass error, const std::string& message);

// Where answers go; standard output is kept free of whatever a runtime prints. Called once, first of all.
void OpenAnswer();

// Writes a line before the answer, at once: for what must be known even if the answer never comes.
void WritePart(const std::string& json);

// Writes the answer, and closes it.
void WriteAnswer(const std::string& json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_FAIL_H_
