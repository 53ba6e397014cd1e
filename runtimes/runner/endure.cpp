#include "runner/endure.h"

#include <algorithm>
#include <vector>

#include "runner/clock.h"
#include "runner/fail.h"
#include "runner/machine.h"
#include "runner/measure.h"
#include "runner/memory.h"

namespace edgecomp::runner {
namespace {

// Of an interval; those beyond are run and counted, and percentiles leave them out. Written once before the first interval: pages
// that are touched later would look like memory that grows.
constexpr size_t kKeptSamples = 1 << 18;

int64_t Percentile(const std::vector<int64_t>& sorted, int64_t percent) {  // nearest rank
  const int64_t rank = (percent * static_cast<int64_t>(sorted.size()) + 99) / 100;
  return sorted[static_cast<size_t>(std::max<int64_t>(rank, 1) - 1)];
}

std::optional<double> Hottest(const Conditions& conditions) {
  std::optional<double> hottest;
  for (const auto& [zone, celsius] : conditions.temperatures_celsius) hottest = std::max(hottest.value_or(celsius), celsius);
  return hottest;
}

void WriteInterval(int64_t elapsed_ns, int64_t count, std::vector<int64_t>* samples, const Request& request) {
  std::sort(samples->begin(), samples->end());
  Json json;
  json.BeginObject();
  json.Key("interval");
  json.BeginObject();
  json.Member("elapsed_ns", elapsed_ns);
  json.Member("inferences", count);
  json.Member("p50_ns", Percentile(*samples, 50));
  json.Member("p90_ns", Percentile(*samples, 90));
  json.Member("max_ns", samples->back());
  json.Member("celsius", Hottest(ReadConditions(request.sys)));
  json.Member("frequency_hz", HighestFrequency(request.sys));
  json.Key("memory");
  ReadMemory(request.files).Write(&json);
  json.EndObject();
  json.EndObject();
  WritePart(json.text() + "\n");
}

}  // namespace

void Endure(Backend* backend, const Request& request, Json* json) {
  backend->Start();
  backend->Load();
  const std::vector<Tensor> inputs = ReadInputs(backend->Inputs(), request);
  backend->SetInputs(inputs);
  for (int64_t i = 0; i < request.warmup; ++i) backend->Run();
  std::vector<int64_t> samples(kKeptSamples, 1);
  samples.clear();

  const int64_t start = Now();
  int64_t total = 0, intervals = 0;
  for (int64_t elapsed = 0; elapsed < request.min_duration_ns;) {
    int64_t count = 0;
    samples.clear();
    // At least one, so that a model slower than an interval has figures too.
    do {
      const int64_t taken = TimedRun(backend);
      if (samples.size() < kKeptSamples) samples.push_back(taken);
      ++count;
      elapsed = Now() - start;
    } while (elapsed < std::min((intervals + 1) * request.interval_ns, request.min_duration_ns));
    total += count;
    intervals = std::max(intervals + 1, elapsed / request.interval_ns);
    WriteInterval(elapsed, count, &samples, request);
  }
  json->BeginObject();
  json->Member("inferences", total);
  json->Member("duration_ns", Now() - start);
  json->EndObject();
}

void OpenAndClose(Backend* backend, const Request& request, Json* json) {
  backend->Start();
  const int64_t step = std::max<int64_t>(request.sessions / 10, 1);
  std::vector<std::pair<int64_t, Memory>> readings;
  std::vector<Tensor> inputs;
  const int64_t start = Now();
  for (int64_t session = 1; session <= request.sessions; ++session) {
    backend->Load();
    if (inputs.empty()) inputs = ReadInputs(backend->Inputs(), request);
    backend->SetInputs(inputs);
    backend->Run();
    backend->Unload();
    if (session % step == 0 || session == request.sessions) readings.emplace_back(session, ReadMemory(request.files));
  }
  json->BeginObject();
  json->Member("sessions", request.sessions);
  json->Member("duration_ns", Now() - start);
  json->Key("memory");
  json->BeginArray();
  for (const auto& [session, memory] : readings) {
    json->BeginObject();
    json->Member("after_sessions", session);
    json->Key("memory");
    memory.Write(json);
    json->EndObject();
  }
  json->EndArray();
  json->EndObject();
}

}  // namespace edgecomp::runner
