// The machine and its state, as far as Linux tells.
#ifndef EDGECOMP_RUNNER_MACHINE_H_
#define EDGECOMP_RUNNER_MACHINE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runner/json.h"

namespace edgecomp::runner {

// Writes what stays the same while a benchmark runs, as an object.
void WriteMachine(const std::string& sys, Json* json);

// What changes while a benchmark runs; empty where the system does not tell.
struct Conditions {
  std::vector<std::pair<std::string, double>> temperatures_celsius;  // by thermal zone
  std::vector<int64_t> frequencies_hz;                               // of each processor
  std::vector<std::pair<std::string, int64_t>> throttling;           // counts of throttling, and a Raspberry Pi's flags
  std::optional<double> load_average_1min;

  void Write(Json* json) const;
};

Conditions ReadConditions(const std::string& sys);

// The highest frequency of the processors this process may run on; nothing where the system does not tell.
std::optional<int64_t> HighestFrequency(const std::string& sys);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_MACHINE_H_
