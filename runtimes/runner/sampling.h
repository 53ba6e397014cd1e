// The choice of the next token, as edgecomp/generation/sampling.py makes it.
#ifndef EDGECOMP_RUNNER_SAMPLING_H_
#define EDGECOMP_RUNNER_SAMPLING_H_

#include <cstdint>

#include "runner/decoder.h"

namespace edgecomp::runner {

struct Sampling {
  double temperature = 0;  // logits are divided by it; 0 takes the likeliest token
  int64_t top_k = 0;       // of so many likeliest tokens alone; 0 for all
  double top_p = 1;        // of the likeliest tokens whose probabilities reach it alone
};

// A token. `number`, at least 0 and below 1, decides: the host draws it, so that a seed means the same on every machine.
int64_t Choose(const Logits& logits, const Sampling& sampling, double number);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_SAMPLING_H_
