#include "runner/decoder_test.h"

#include <algorithm>
#include <cstring>

#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

class DecoderTest : public Backend {
 public:
  DecoderTest(std::unique_ptr<Backend> model, const Request& request) : model_(std::move(model)), request_(request) {}

  const char* Name() const override { return model_->Name(); }
  void Start() override { model_->Start(); }

  void Load() override {
    model_->Load();
    decoder_ = model_->OpenDecoder();
  }

  void Unload() override {
    decoder_.reset();
    model_->Unload();
  }

  std::vector<TensorSpec> Inputs() const override { return {{"tokens", ElementTypeNamed("int64"), {{-1, "tokens"}}}}; }
  std::vector<TensorSpec> Outputs() const override { return {{"logits", ElementTypeNamed("float32"), {{-1, "vocabulary"}}}}; }

  void SetInputs(const std::vector<Tensor>& inputs) override {
    const Tensor& given = inputs.at(0);
    tokens_.resize(given.data.size() / sizeof(int64_t));
    if (given.shape.size() != 1 || static_cast<int64_t>(tokens_.size()) <= request_.depth) {
      Fail(ErrorClass::kConfig, "tokens must be int64 of one axis, more than the depth of " + std::to_string(request_.depth) +
                                    ", got " + given.Describe());
    }
    std::memcpy(tokens_.data(), given.data.data(), given.data.size());
    if (request_.depth > 0) decoder_->Feed(tokens_.data(), request_.depth);
  }

  void Run() override {
    decoder_->Rewind(request_.depth);
    const auto count = static_cast<int64_t>(tokens_.size());
    for (int64_t start = request_.depth; start < count; start += request_.step) {
      logits_ = decoder_->Feed(tokens_.data() + start, std::min(request_.step, count - start));
    }
  }

  std::vector<TensorView> LastOutputs() const override {
    return {{"logits",
             ElementTypeNamed("float32"),
             {static_cast<int64_t>(logits_.count)},
             logits_.data,
             logits_.count * sizeof(float)}};
  }

  void StartTrace(const std::string& file) override { model_->StartTrace(file); }
  void EndTrace() override { model_->EndTrace(); }
  std::unique_ptr<Decoder> OpenDecoder() override { return model_->OpenDecoder(); }
  int64_t CacheBytes() const override { return decoder_->CacheBytes(); }
  NamedTexts Versions() const override { return model_->Versions(); }

 private:
  std::unique_ptr<Backend> model_;
  const Request& request_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<int64_t> tokens_;
  Logits logits_;
};

}  // namespace

std::unique_ptr<Backend> MakeDecoderTest(std::unique_ptr<Backend> model, const Request& request) {
  return std::make_unique<DecoderTest>(std::move(model), request);
}

}  // namespace edgecomp::runner
