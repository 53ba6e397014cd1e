// A language model's rate, as llama-bench tests it: `pp512` gives 512 tokens at once, `tg128` one after the other 128, each behind
// `depth` tokens that the cache holds. Whatever measures a model measures such a test: a run is one repetition of it.
#ifndef EDGECOMP_RUNNER_DECODER_TEST_H_
#define EDGECOMP_RUNNER_DECODER_TEST_H_

#include <memory>

#include "runner/backend.h"

namespace edgecomp::runner {

// Its one input `tokens`, int64, holds the request's `depth` tokens and then those that a run gives, `step` at once; its one output
// `logits`, float32, are those of what follows.
std::unique_ptr<Backend> MakeDecoderTest(std::unique_ptr<Backend> model, const Request& request);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_DECODER_TEST_H_
