// One measurement: what edgecomp.bench.record.Measurement describes.
#ifndef EDGECOMP_RUNNER_MEASURE_H_
#define EDGECOMP_RUNNER_MEASURE_H_

#include "runner/backend.h"
#include "runner/json.h"

namespace edgecomp::runner {

// The request's inputs in the model's order; fails with ConfigError where one is missing or of another type.
std::vector<Tensor> ReadInputs(const std::vector<TensorSpec>& specs, const Request& request);

// Writes the artifact's inputs and outputs, as an object.
void Describe(Backend* backend, Json* json);

// Base line, empty session, cold load, first inference, warm-up, samples, then (when all memory is read) a second, warm load.
// Writes the measurement, as an object.
void Measure(Backend* backend, const Request& request, Json* json);

// The same warm-up and samples with the time of each operator, in trace.json of the request's folder (Backend::StartTrace).
// Writes how many of the last runs are samples, as an object.
void Trace(Backend* backend, const Request& request, Json* json);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_MEASURE_H_
