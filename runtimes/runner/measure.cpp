#include "runner/measure.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "runner/clock.h"
#include "runner/count_mark.h"
#include "runner/fail.h"
#include "runner/files.h"
#include "runner/machine.h"
#include "runner/memory.h"
#include "runner/npy.h"
#include "runner/sha256.h"
#include "runner/variants.h"

namespace edgecomp::runner {
namespace {

// How far the other clocks are ahead of the one that measures: the wall clock moves against it when somebody sets it, and the
// boot clock when the machine sleeps.
struct Offsets {
  int64_t wall_ns = Now(CLOCK_REALTIME) - Now();
  int64_t boot_ns = Now(CLOCK_BOOTTIME) - Now();
};

void WriteSpecs(const std::vector<TensorSpec>& specs, Json* json) {
  json->BeginArray();
  for (const TensorSpec& spec : specs) {
    json->BeginObject();
    json->Member("name", spec.name);
    json->Member("dtype", spec.type->name);
    json->Key("shape");
    json->BeginArray();
    for (const Dimension& dimension : spec.shape) {
      if (dimension.size >= 0) {
        json->Value(dimension.size);
      } else if (dimension.name.empty()) {
        json->Null();
      } else {
        json->Value(dimension.name);
      }
    }
    json->EndArray();
    json->EndObject();
  }
  json->EndArray();
}

void WriteOutput(const std::string& path, const TensorView& output) {
  if (!WriteFile(path, {NpyHeader(output), {static_cast<const char*>(output.data), output.bytes}})) {
    Fail(ErrorClass::kDevice, "output " + output.name + " cannot be written to " + path + ": " + std::strerror(errno));
  }
}

// Digests of the last run's outputs; their files, where a folder is asked for.
void WriteOutputs(const std::vector<TensorView>& outputs, const Request& request, Json* json) {
  int64_t bytes = 0;
  for (const TensorView& output : outputs) bytes += static_cast<int64_t>(output.bytes);
  if (!request.output_folder.empty() && bytes > request.max_output_bytes) {
    Fail(ErrorClass::kDevice, "the outputs hold " + std::to_string(bytes) + " bytes, and at most " +
                                  std::to_string(request.max_output_bytes) + " are brought back; give smaller inputs");
  }
  json->BeginArray();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!request.output_folder.empty()) WriteOutput(request.output_folder + "/output-" + std::to_string(i) + ".npy", outputs[i]);
    json->BeginObject();
    json->Member("name", outputs[i].name);
    json->Member("type", DescribeTensor(*outputs[i].type, outputs[i].shape));
    json->Member("sha256", Sha256(outputs[i].data, outputs[i].bytes));
    json->EndObject();
  }
  json->EndArray();
}

struct Samples {
  std::vector<int64_t> warmup_ns;
  std::vector<int64_t> samples_ns;
  int64_t duration_ns = 0;
  std::pair<std::optional<int64_t>, std::optional<int64_t>> frequency_hz;  // at the start and at the end
  int64_t wall_clock_jump_ns = 0;
  int64_t suspended_ns = 0;
};

Samples Sample(Backend* backend, const Request& request) {
  Samples taken;
  for (int64_t i = 0; i < request.warmup; ++i) taken.warmup_ns.push_back(TimedRun(backend));
  constexpr int64_t kReserved = 1 << 20;  // a vector that grows in the middle would count as the model's time
  taken.samples_ns.reserve(static_cast<size_t>(std::clamp<int64_t>(request.min_iterations, 1 << 16, kReserved)));
  taken.frequency_hz.first = HighestFrequency(request.sys);
  const Offsets before;
  MarkCount();
  const int64_t start = Now();
  while (taken.duration_ns < request.max_duration_ns &&
         (static_cast<int64_t>(taken.samples_ns.size()) < request.min_iterations || taken.duration_ns < request.min_duration_ns)) {
    taken.samples_ns.push_back(TimedRun(backend));
    taken.duration_ns = Now() - start;
  }
  MarkCount();
  const Offsets after;
  taken.frequency_hz.second = HighestFrequency(request.sys);
  taken.wall_clock_jump_ns = after.wall_ns - before.wall_ns;
  taken.suspended_ns = after.boot_ns - before.boot_ns;
  return taken;
}

void WriteMemory(const std::vector<std::pair<std::string, Memory>>& trace, Json* json) {
  json->BeginObject();
  for (const auto& [moment, memory] : trace) {
    json->Key(moment);
    memory.Write(json);
  }
  json->EndObject();
}

}  // namespace

std::vector<Tensor> ReadInputs(const std::vector<TensorSpec>& specs, const Request& request) {
  std::vector<Tensor> inputs;
  for (const TensorSpec& spec : specs) {
    const auto given =
        std::find_if(request.inputs.begin(), request.inputs.end(), [&](const auto& i) { return i.first == spec.name; });
    if (given == request.inputs.end()) Fail(ErrorClass::kConfig, "the model's input " + spec.name + " must be given");
    inputs.push_back({spec.name, nullptr, {}, {}});
    const std::string wrong = ReadNpy(given->second, &inputs.back());
    if (!wrong.empty()) {
      Fail(ErrorClass::kConfig, "input " + spec.name + ": " + given->second + " must be a .npy file " + wrong);
    }
    if (inputs.back().type != spec.type) {
      Fail(ErrorClass::kConfig, "input " + spec.name + " must be " + spec.type->name + ", got " + inputs.back().Describe());
    }
  }
  return inputs;
}

void Describe(Backend* backend, Json* json) {
  backend->Start();
  backend->Load();
  json->BeginObject();
  json->Key("inputs");
  WriteSpecs(backend->Inputs(), json);
  json->Key("outputs");
  WriteSpecs(backend->Outputs(), json);
  json->EndObject();
}

void Measure(Backend* backend, const Request& request, Json* json) {
  std::vector<std::pair<std::string, Memory>> memory;
  const auto read_memory = [&](const char* moment) { memory.emplace_back(moment, ReadMemory(request.files)); };

  read_memory("baseline");
  backend->Start();
  read_memory("empty_session");
  const bool peak_reset = ResetPeak();

  const bool dropped = DropPageCache(request.files);
  const int64_t cached = CachedBytes(request.files);
  const int64_t cold_ns = TimedLoad(backend);
  read_memory("loaded");
  const std::vector<Tensor> inputs = ReadInputs(backend->Inputs(), request);
  backend->SetInputs(inputs);
  const int64_t first_ns = TimedRun(backend);
  read_memory("first_inference");
  const Samples samples = Sample(backend, request);
  read_memory("steady");
  const int64_t cache_bytes = backend->CacheBytes();

  json->BeginObject();
  json->Member("runtime", backend->Name());
  json->Member("versions", backend->Versions());
  json->Member("kernels", LoadedVariants(request.library));
  NamedTexts types;
  for (const Tensor& input : inputs) types.emplace_back(input.name, input.Describe());
  json->Member("inputs", types);
  json->Key("outputs");
  WriteOutputs(backend->LastOutputs(), request, json);

  backend->Unload();
  const int64_t warm_ns = TimedLoad(backend);
  json->Key("load");
  json->BeginObject();
  json->Member("cold_ns", cold_ns);
  json->Member("warm_ns", warm_ns);
  json->Member("page_cache_dropped", dropped);
  json->Member("cached_bytes_before_cold", cached);
  json->EndObject();
  json->Member("first_inference_ns", first_ns);
  json->Member("warmup_ns", samples.warmup_ns);
  json->Member("samples_ns", samples.samples_ns);
  json->Member("duration_ns", samples.duration_ns);
  json->Member("frequency_start_hz", samples.frequency_hz.first);
  json->Member("frequency_end_hz", samples.frequency_hz.second);
  json->Member("wall_clock_jump_ns", samples.wall_clock_jump_ns);
  json->Member("suspended_ns", samples.suspended_ns);
  json->Key("memory");
  WriteMemory(memory, json);
  json->Member("peak_reset", peak_reset);
  json->Member("cache_bytes", cache_bytes);
  json->EndObject();
}

void Trace(Backend* backend, const Request& request, Json* json) {
  const std::string file = request.output_folder + "/trace.json";
  backend->Start();
  backend->StartTrace(file);
  backend->Load();
  const std::vector<Tensor> inputs = ReadInputs(backend->Inputs(), request);
  backend->SetInputs(inputs);
  const Samples samples = Sample(backend, request);
  backend->EndTrace();
  struct stat status = {};
  if (stat(file.c_str(), &status) != 0 || status.st_size > request.max_output_bytes) {
    Fail(ErrorClass::kDevice, "the trace of operators holds " + std::to_string(status.st_size) + " bytes, and at most " +
                                  std::to_string(request.max_output_bytes) + " are brought back; give smaller inputs");
  }
  json->BeginObject();
  json->Member("runs", static_cast<int64_t>(samples.samples_ns.size()));
  json->EndObject();
}

}  // namespace edgecomp::runner
