// One measurement: what edgecomp.bench.record.Measurement describes.
#ifndef EDGECOMP_RUNNER_MEASURE_H_
#define EDGECOMP_RUNNER_MEASURE_H_

#include "runner/backend.h"
#include "runner/json.h"

namespace edgecomp::runner {

// Writes the artifact's inputs and outputs, as an object.
void Describe(Backend* backend, Json* json);

// Base line, empty session, cold load, first inference, warm-up, samples, then (when all memory is read) a second, warm load.
// Writes the measurement, as an object.
void Measure(Backend* backend, const Request& request, Json* json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_MEASURE_H_
