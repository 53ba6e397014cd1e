// Text of a language model, turn by turn, while the host asks for it and shows it.
#ifndef EDGECOMP_RUNNER_GENERATE_H_
#define EDGECOMP_RUNNER_GENERATE_H_

#include <istream>

#include "runner/backend.h"
#include "runner/json.h"
#include "runner/request.h"

namespace edgecomp::runner {

// Loads the model and writes {"ready": {"load_ns"}} as a line of its own. Then each turn is asked for by two lines:
//
//   KEEP MOST TOKEN TOKEN ...     how many tokens of the cache stay, how many may be written at most, and those to be given
//   NUMBER NUMBER ...             MOST random numbers of at least 0 and below 1 (sampling.h); none where the likeliest are taken
//
// and answered by lines as it goes on: {"prompt": {"tokens", "ns"}}, {"token", "ns"} for each one that is written (time since the
// prompt was done), and {"turn": {"tokens", "memory", "cache_bytes"}}. A turn ends with MOST tokens, with one of the request's
// stops, which is told too, or where the context is full. The last token is not given to the model. At the end of the lines it
// writes how many turns there were, as an object.
void Generate(Backend* backend, const Request& request, std::istream& turns, Json* json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_GENERATE_H_
