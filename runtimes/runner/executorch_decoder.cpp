#include "runner/executorch_decoder.h"

#include <executorch/runtime/core/exec_aten/exec_aten.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "runner/executorch_errors.h"
#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::extension::Module;
using executorch::runtime::EValue;

constexpr const char* kMethod = "forward";

class ExecuTorchDecoder : public Decoder {
 public:
  ExecuTorchDecoder(Module* module, int64_t context, int64_t chunk) : Decoder(context, chunk), module_(module) {}

  int64_t CacheBytes() const override { return 0; }

 protected:
  Logits Run(const int64_t* tokens, int64_t count, int64_t before) override {
    executorch::aten::SizesType sizes[] = {1, static_cast<executorch::aten::SizesType>(count)}, one[] = {1};
    executorch::aten::DimOrderType order[] = {0, 1};
    executorch::aten::StridesType strides[] = {static_cast<executorch::aten::StridesType>(count), 1};
    // The runtime only reads inputs, though its interface does not say so.
    TensorImpl ids(ScalarType::Long, 2, sizes, const_cast<int64_t*>(tokens), order, strides);
    int64_t start = before;
    TensorImpl place(ScalarType::Long, 1, one, &start, order, strides + 1);
    auto result = module_->execute(kMethod, {EValue(executorch::aten::Tensor(&ids)), EValue(executorch::aten::Tensor(&place))});
    if (!result.ok()) {
      Fail(ErrorClass::kModel, "the model fails at token " + std::to_string(before) + ": " + FirstError(result.error()));
    }
    results_ = std::move(*result);
    const bool tensor = !results_.empty() && results_[0].isTensor();
    if (!tensor || results_[0].toTensor().scalar_type() != ScalarType::Float || results_[0].toTensor().dim() < 2) {
      Fail(ErrorClass::kCheckpoint, "the first output must be logits, float32 of two axes or three");
    }
    const auto& logits = results_[0].toTensor();
    const auto vocabulary = static_cast<size_t>(logits.size(logits.dim() - 1));
    const auto all = static_cast<size_t>(logits.numel());
    return {logits.const_data_ptr<float>() + (all - vocabulary), vocabulary};
  }

  // What lies behind the tokens is written over, and their place tells the program how many there are.
  void Shorten(int64_t) override {}

 private:
  Module* const module_;
  std::vector<EValue> results_;  // of the last run
};

}  // namespace

std::unique_ptr<Decoder> MakeExecuTorchDecoder(Module* module, const Request& request) {
  const auto meta = module->method_meta(kMethod);
  bool right = meta.ok() && meta->num_inputs() == 2 && meta->num_outputs() >= 1;
  int64_t chunk = Decoder::kChunk;
  if (right) {
    const auto tokens = meta->input_tensor_meta(0), place = meta->input_tensor_meta(1);
    right = tokens.ok() && place.ok() && tokens->scalar_type() == ScalarType::Long && place->scalar_type() == ScalarType::Long &&
            tokens->sizes().size() == 2 && place->sizes().size() == 1;
    if (right) chunk = std::min<int64_t>(chunk, tokens->sizes()[1]);  // the most that it takes
  }
  if (!right || chunk < 1) {
    Fail(ErrorClass::kCheckpoint, request.artifact +
                                      " must take tokens, int64 [1, S], and the place of the first one, int64 [1], and " +
                                      "give logits: it is no language model with a cache");
  }
  return std::make_unique<ExecuTorchDecoder>(module, request.context, chunk);
}

}  // namespace edgecomp::runner
