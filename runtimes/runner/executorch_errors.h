// What ExecuTorch logs of errors: its functions return numbers, and the cause is the first line. Kept in place of printed.
#ifndef EDGECOMP_RUNNER_EXECUTORCH_ERRORS_H_
#define EDGECOMP_RUNNER_EXECUTORCH_ERRORS_H_

#include <executorch/runtime/core/error.h>

#include <string>

namespace edgecomp::runner {

// Called once, before the runtime does anything.
void KeepErrors();
void ForgetErrors();

// The first line since then; the error's number where nothing was logged.
std::string FirstError(executorch::runtime::Error error);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_EXECUTORCH_ERRORS_H_
