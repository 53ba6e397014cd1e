// What the host asks for: lines `key=value`, since a request is flat and a device has no parser of anything richer.
#ifndef EDGECOMP_RUNNER_REQUEST_H_
#define EDGECOMP_RUNNER_REQUEST_H_

#include <cstdint>
#include <istream>
#include <string>
#include <utility>
#include <vector>

#include "runner/sampling.h"

namespace edgecomp::runner {

enum class Action {
  kMachine,   // what machine this is, and its state
  kDescribe,  // the artifact's inputs and outputs
  kMeasure,
  kTrace,     // the time of each operator
  kEndure,    // one session for minutes
  kSessions,  // many, one after the other
  kEnergy,
  kGenerate,  // text, in turns that are told by lines behind the request (generate.h)
};

struct Request {
  Action action = Action::kMeasure;
  std::string artifact;            // what the backend loads
  std::vector<std::string> files;  // all files of the artifact, whose memory and cache are watched
  std::string runtime;             // the runtime's library, where the backend loads one
  std::string library;             // custom operators; empty for none
  int threads = 1;
  std::vector<int> cpus;                                    // to run on; empty for all
  std::vector<std::pair<std::string, std::string>> inputs;  // name of an input, its .npy file
  std::string output_folder;                                // for output-0.npy and so on, or trace.json; empty for none
  int64_t max_output_bytes = INT64_MAX;                     // of all these files together
  int64_t warmup = 0;
  int64_t min_iterations = 1;
  int64_t min_duration_ns = 0;
  int64_t max_duration_ns = INT64_MAX;
  int64_t interval_ns = 60'000'000'000;  // of a long run, each told at its end
  int64_t sessions = 0;                  // to open and close
  int64_t idle_ns = 0;                   // for which idle power is measured before an energy run
  int64_t deadline_s = 0;                // the process ends itself after so many seconds; 0 for never
  // Of a language model with a cache:
  int64_t step = 0;             // tokens that it is given at once, in a test of its rate (decoder_test.h); 0 for no such test
  int64_t depth = 0;            // tokens that its cache holds before
  int64_t context = 0;          // that a text may have at most
  bool cache_in_place = false;  // whether the runtime writes new keys and values behind the old ones, in one buffer
  std::vector<int64_t> stops;   // tokens that end a text
  Sampling sampling;            // how tokens of a text are chosen
  std::string sys = "/sys";     // where the kernel tells of temperatures and frequencies
};

// Reads lines to their end, or to an empty one, behind which an action may find more. Fails with ConfigError on an unknown key or a
// value that is no number where one must be.
Request ReadRequest(std::istream& lines);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_REQUEST_H_
