// ONNX Runtime as a decoder: a model of tokens, a mask, and keys and values of past tokens, which gives logits and these.
#ifndef EDGECOMP_RUNNER_ONNXRUNTIME_DECODER_H_
#define EDGECOMP_RUNNER_ONNXRUNTIME_DECODER_H_

#include <memory>
#include <string>
#include <vector>

#include "runner/decoder.h"
#include "runner/onnxruntime_calls.h"
#include "runner/request.h"

namespace edgecomp::runner {

// Of a session, which outlives it as all that is given does, but the names. Fails with CheckpointError where inputs and outputs are
// not those that edgecomp exports.
std::unique_ptr<Decoder> MakeOnnxRuntimeDecoder(const OrtCalls& calls, OrtSession* session, const Request& request,
                                                const std::vector<TensorSpec>& inputs, const std::vector<std::string>& outputs);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_ONNXRUNTIME_DECODER_H_
