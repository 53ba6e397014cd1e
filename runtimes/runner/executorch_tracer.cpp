#include "runner/executorch_tracer.h"

#include <executorch/runtime/platform/clock.h>
#include <executorch/runtime/platform/platform.h>

#include <cerrno>
#include <cstring>

#include "runner/fail.h"
#include "runner/files.h"
#include "runner/json.h"

namespace edgecomp::runner {
namespace {

constexpr int64_t kIgnored = -1;

bool Is(const char* name, const char* expected) { return std::strcmp(name, expected) == 0; }

}  // namespace

ExecuTorchTracer::ExecuTorchTracer() {
  constexpr size_t kReserved = 1 << 16;  // a vector that grows in the middle would count as an operator's time
  events_.reserve(kReserved);
}

ExecuTorchTracer::Entry ExecuTorchTracer::Begin(Kind kind, const char* part, PartId id) {
  Entry entry = {};
  entry.event_id = static_cast<int64_t>(events_.size());
  const std::string name = kind != Kind::kPart ? "" : part != nullptr ? part : "part " + std::to_string(id);
  events_.push_back({kind, debug_handle_, name, executorch::runtime::pal_current_ticks(), 0});
  return entry;
}

ExecuTorchTracer::Entry ExecuTorchTracer::start_profiling(const char* name, executorch::runtime::ChainID,
                                                          executorch::runtime::DebugHandle) {
  if (Is(name, "Method::execute")) return Begin(Kind::kRun, nullptr, 0);
  if (Is(name, "OPERATOR_CALL") || Is(name, "DELEGATE_CALL")) return Begin(Kind::kInstruction, nullptr, 0);
  // Loading, and kernels within their instruction.
  Entry entry = {};
  entry.event_id = kIgnored;
  return entry;
}

void ExecuTorchTracer::end_profiling(Entry entry) {
  if (entry.event_id != kIgnored) events_[static_cast<size_t>(entry.event_id)].end = executorch::runtime::pal_current_ticks();
}

ExecuTorchTracer::Entry ExecuTorchTracer::start_profiling_delegate(const char* name, PartId id) {
  return Begin(Kind::kPart, name, id);
}

void ExecuTorchTracer::end_profiling_delegate(Entry entry, const void*, size_t) { end_profiling(entry); }

void ExecuTorchTracer::log_profiling_delegate(const char* name, PartId id, et_timestamp_t start, et_timestamp_t end, const void*,
                                              size_t) {
  Event& event = events_[static_cast<size_t>(Begin(Kind::kPart, name, id).event_id)];
  event.start = start;
  event.end = end;
}

void ExecuTorchTracer::Write(const std::string& file) const {
  if (events_.empty()) {
    Fail(ErrorClass::kRuntimeUnavailable, "ExecuTorch must be built with event tracing to tell the time of operators, and is not");
  }
  const auto microseconds = [](et_timestamp_t ticks) { return static_cast<double>(executorch::runtime::ticks_to_ns(ticks)) / 1e3; };
  Json json;
  json.BeginArray();
  for (const Event& event : events_) {
    const std::string instruction = std::to_string(event.instruction);
    json.BeginObject();
    if (event.kind == Kind::kRun) {
      json.Member("cat", "Session");
      json.Member("name", "model_run");
    } else {
      json.Member("cat", "Node");
      json.Member("name", instruction + (event.kind == Kind::kPart ? " " + event.name : "") + "_kernel_time");
      json.Key("args");
      json.BeginObject();
      json.Member("instruction", event.instruction);
      if (event.kind == Kind::kPart) json.Member("part", event.name);
      json.EndObject();
    }
    json.Member("ts", microseconds(event.start - events_.front().start));
    json.Member("dur", microseconds(event.end - event.start));
    json.EndObject();
  }
  json.EndArray();
  if (!WriteFile(file, {json.text()})) {
    Fail(ErrorClass::kDevice, "the trace of operators cannot be written to " + file + ": " + std::strerror(errno));
  }
}

}  // namespace edgecomp::runner
