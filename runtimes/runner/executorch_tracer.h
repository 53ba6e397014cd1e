// Times of a program's instructions, by ExecuTorch's event tracer: it calls this at the begin and the end of each.
#ifndef EDGECOMP_RUNNER_EXECUTORCH_TRACER_H_
#define EDGECOMP_RUNNER_EXECUTORCH_TRACER_H_

#include <executorch/runtime/core/event_tracer.h>

#include <string>
#include <vector>

namespace edgecomp::runner {

class ExecuTorchTracer : public executorch::runtime::EventTracer {
 public:
  using Entry = executorch::runtime::EventTracerEntry;
  using PartId = executorch::runtime::DelegateDebugIntId;
  using Tensor = executorch::aten::Tensor;
  template <class T>
  using Result = executorch::runtime::Result<T>;

  ExecuTorchTracer();

  // Writes what Backend::StartTrace describes; fails with RuntimeUnavailableError where the runtime called nothing, since it was
  // built without event tracing.
  void Write(const std::string& file) const;

  Entry start_profiling(const char* name, executorch::runtime::ChainID, executorch::runtime::DebugHandle) override;
  void end_profiling(Entry entry) override;

  // Parts of a backend's work, by backends that tell them.
  Entry start_profiling_delegate(const char* name, PartId id) override;
  void end_profiling_delegate(Entry entry, const void* metadata, size_t metadata_bytes) override;
  void log_profiling_delegate(const char* name, PartId id, et_timestamp_t start, et_timestamp_t end, const void* metadata,
                              size_t metadata_bytes) override;

  // Of allocations and values nothing is kept.
  void create_event_block(const char*) override {}
  void track_allocation(executorch::runtime::AllocatorID, size_t) override {}
  executorch::runtime::AllocatorID track_allocator(const char*) override { return 0; }
  void set_delegation_intermediate_output_filter(executorch::runtime::EventTracerFilterBase*) override {}
  Result<bool> log_evalue(const executorch::runtime::EValue&, executorch::runtime::LoggedEValueType) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, PartId, const Tensor&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, PartId, executorch::runtime::ArrayRef<Tensor>) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, PartId, const int&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, PartId, const bool&) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, PartId, const double&) override { return false; }

 private:
  enum class Kind { kRun, kInstruction, kPart };
  struct Event {
    Kind kind;
    int64_t instruction;
    std::string name;  // of a part
    et_timestamp_t start;
    et_timestamp_t end;
  };

  Entry Begin(Kind kind, const char* part, PartId id);

  std::vector<Event> events_;
};

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_EXECUTORCH_TRACER_H_
