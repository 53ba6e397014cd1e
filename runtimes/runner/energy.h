// Joules of inferences, by what the machine has: RAPL's counters, an INA sensor under hwmon, or a Raspberry Pi 5's power
// controller.
#ifndef EDGECOMP_RUNNER_ENERGY_H_
#define EDGECOMP_RUNNER_ENERGY_H_

#include "runner/backend.h"
#include "runner/json.h"
#include "runner/request.h"

namespace edgecomp::runner {

// Loads, warms up, rests for `idle_ns` and then samples: idle power, joules of the samples, and how finely and how often the meter
// counts, as an object. Fails with RuntimeUnavailableError where there is no meter, or none that may be read.
void MeasureEnergy(Backend* backend, const Request& request, Json* json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_ENERGY_H_
