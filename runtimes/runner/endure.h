// Long runs: one session for minutes, and many sessions one after the other. What grows is seen by neither a sample nor a round.
#ifndef EDGECOMP_RUNNER_ENDURE_H_
#define EDGECOMP_RUNNER_ENDURE_H_

#include "runner/backend.h"
#include "runner/json.h"
#include "runner/request.h"

namespace edgecomp::runner {

// Runs for `min_duration_ns` and writes {"interval": ...} as a line of its own at the end of each `interval_ns`, so that what was
// measured is told even where the machine goes down; the object for the answer is of the whole.
void Endure(Backend* backend, const Request& request, Json* json);

// Loads, runs once and unloads `sessions` times: memory after each tenth of them.
void OpenAndClose(Backend* backend, const Request& request, Json* json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_ENDURE_H_
