// ExecuTorch as a decoder: a program whose method `forward` takes tokens, int64 [1, S], and the place of the first of them, int64
// [1], gives their logits, and keeps keys and values in buffers of its own, as ExecuTorch's own TextLLMRunner has it.
#ifndef EDGECOMP_RUNNER_EXECUTORCH_DECODER_H_
#define EDGECOMP_RUNNER_EXECUTORCH_DECODER_H_

#include <executorch/extension/module/module.h>

#include <memory>

#include "runner/decoder.h"
#include "runner/request.h"

namespace edgecomp::runner {

// Of a module, which outlives it. Fails with CheckpointError where the program is another.
std::unique_ptr<Decoder> MakeExecuTorchDecoder(executorch::extension::Module* module, const Request& request);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_EXECUTORCH_DECODER_H_
