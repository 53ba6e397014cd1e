// A runtime that the runner measures. Each is a program of its own (edgecomp-run-NAME) that links one implementation, so that a
// device loads no more than it runs.
#ifndef EDGECOMP_RUNNER_BACKEND_H_
#define EDGECOMP_RUNNER_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runner/decoder.h"
#include "runner/request.h"
#include "runner/tensor.h"

namespace edgecomp::runner {

using NamedTexts = std::vector<std::pair<std::string, std::string>>;

// Calls come in this order: Start, Load, then Inputs and Outputs or SetInputs and Run as often as asked, Unload, and Load again.
// To trace, StartTrace comes before Load and EndTrace after the last Run.
// Every function ends the process by Fail (fail.h) where it cannot do what it says.
class Backend {
 public:
  virtual ~Backend() = default;

  // The runtime's name, as in a record.
  virtual const char* Name() const = 0;

  // Brings up everything of the runtime that is not the artifact's, and runs it once: the memory that an artifact is measured
  // above.
  virtual void Start() = 0;

  // Loads the artifact, custom operators included, ready to run. Timed.
  virtual void Load() = 0;
  virtual void Unload() = 0;

  virtual std::vector<TensorSpec> Inputs() const = 0;
  virtual std::vector<TensorSpec> Outputs() const = 0;

  // In the order of Inputs(), and outliving every run; shapes fit them. No copy need be made.
  virtual void SetInputs(const std::vector<Tensor>& inputs) = 0;

  // One inference. Timed.
  virtual void Run() = 0;

  // Of the last run, valid until the next.
  virtual std::vector<TensorView> LastOutputs() const = 0;

  // Records when each operator of each run began and how long it took, by the runtime's own means; EndTrace writes `file`. That
  // costs time itself, so no time is quoted from a run that is traced.
  //
  // The file is in Chrome's trace format: an event "model_run" for each run, and for each operator one named NODE_kernel_time, with
  // args.op_name; or with args.instruction, where the program alone tells what that calls, and args.part for a part of a
  // delegate's work. An event within another's time is a part of it.
  virtual void StartTrace(const std::string& file) = 0;
  virtual void EndTrace() = 0;

  // Of the loaded model, and gone before it is unloaded; where it is a language model with a cache, as edgecomp exports it.
  virtual std::unique_ptr<Decoder> OpenDecoder() = 0;

  // Memory for what past tokens left; 0 where the artifact is not run by a decoder.
  virtual int64_t CacheBytes() const { return 0; }

  // Versions of the runtime and of what it is made of.
  virtual NamedTexts Versions() const = 0;
};

// Defined by each backend, once a program. The request outlives the backend.
std::unique_ptr<Backend> MakeBackend(const Request& request);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_BACKEND_H_
