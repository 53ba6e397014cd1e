// The clock that measures, and the two things that are timed by it.
#ifndef EDGECOMP_RUNNER_CLOCK_H_
#define EDGECOMP_RUNNER_CLOCK_H_

#include <time.h>

#include <cstdint>

#include "runner/backend.h"

namespace edgecomp::runner {

inline int64_t Now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time = {};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

inline int64_t TimedLoad(Backend* backend) {
  const int64_t start = Now();
  backend->Load();
  return Now() - start;
}

inline int64_t TimedRun(Backend* backend) {
  const int64_t start = Now();
  backend->Run();
  return Now() - start;
}

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_CLOCK_H_
