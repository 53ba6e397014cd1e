#include "runner/onnxruntime_decoder.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

constexpr const char *kPast = "past_key_values", *kPresent = "present";
// Places that a cache in place has at first, and grows by at least, as in edgecomp/generation/session.py.
constexpr int64_t kRoom = 256;

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};

// Keys or values of one layer, [1, heads, room, size].
struct Part {
  std::string past, present;
  const ElementType* type;
  int64_t heads, size;
  int64_t room = 0;
  std::unique_ptr<uint8_t, FreeMemory> memory;  // null where the runtime allocated it
  OrtValue* value = nullptr;

  size_t Place() const { return static_cast<size_t>(size) * type->bytes; }  // bytes of a token, of one head
  size_t Bytes() const { return static_cast<size_t>(heads * room) * Place(); }
};

class OnnxRuntimeDecoder : public Decoder {
 public:
  OnnxRuntimeDecoder(const OrtCalls& calls, OrtSession* session, const Request& request, std::vector<Part> parts)
      : Decoder(request.context), calls_(calls), session_(session), in_place_(request.cache_in_place), parts_(std::move(parts)) {
    for (Part& part : parts_) Resize(&part, in_place_ ? std::min(kRoom, request.context) : 0, 0);
  }

  ~OnnxRuntimeDecoder() override {
    for (const Part& part : parts_) ort::ReleaseValue::Call(calls_.api(), part.value);
    ort::ReleaseValue::Call(calls_.api(), logits_);
  }

  int64_t CacheBytes() const override {
    size_t bytes = 0;
    for (const Part& part : parts_) bytes += part.Bytes();
    return static_cast<int64_t>(bytes);
  }

 protected:
  Logits Run(const int64_t* tokens, int64_t count, int64_t before) override {
    const int64_t total = before + count, room = parts_[0].room;
    if (in_place_ && total > room) {
      for (Part& part : parts_) Resize(&part, std::min(std::max(total + kRoom, 2 * room), Context()), before);
    }
    mask_.resize(static_cast<size_t>(total), 1);
    const int64_t token_shape[] = {1, count}, mask_shape[] = {1, total};
    const ElementType* type = ElementTypeNamed("int64");
    auto* given = const_cast<int64_t*>(tokens);  // the runtime only reads inputs, though its interface does not say so
    OrtValue* ids = calls_.MakeValue(type, given, static_cast<size_t>(count) * sizeof(int64_t), token_shape, 2);
    OrtValue* mask = calls_.MakeValue(type, mask_.data(), static_cast<size_t>(total) * sizeof(int64_t), mask_shape, 2);
    Call(ids, mask, before);
    ort::ReleaseValue::Call(calls_.api(), ids);
    ort::ReleaseValue::Call(calls_.api(), mask);
    const TensorView view = calls_.View("logits", logits_);
    if (view.shape.size() != 3 || std::strcmp(view.type->name, "float32") != 0) {
      Fail(ErrorClass::kCheckpoint, "logits must be float32 of three axes, got " + DescribeTensor(*view.type, view.shape));
    }
    const auto vocabulary = static_cast<size_t>(view.shape[2]);
    return {static_cast<const float*>(view.data) + static_cast<size_t>(view.shape[1] - 1) * vocabulary, vocabulary};
  }

  void Shorten(int64_t length) override {
    // In place, what lies behind the tokens is written over, and the mask tells how many there are.
    for (Part& part : parts_) {
      if (!in_place_) Resize(&part, length, length);
    }
  }

 private:
  // One run: of a cache in place, the runtime is given the same memory for what it takes and for what it gives.
  void Call(OrtValue* ids, OrtValue* mask, int64_t before) {
    std::vector<const char*> inputs = {"input_ids", "attention_mask"}, outputs = {"logits"};
    std::vector<const OrtValue*> values = {ids, mask};
    ort::ReleaseValue::Call(calls_.api(), logits_);
    logits_ = nullptr;
    std::vector<OrtValue*> results = {nullptr};
    for (const Part& part : parts_) {
      inputs.push_back(part.past.c_str());
      outputs.push_back(part.present.c_str());
      values.push_back(part.value);
      results.push_back(in_place_ ? part.value : nullptr);
    }
    OrtStatus* status = ort::Run::Call(calls_.api(), session_, nullptr, inputs.data(), values.data(), values.size(), outputs.data(),
                                       outputs.size(), results.data());
    calls_.Check(ErrorClass::kModel, "the model fails at token " + std::to_string(before), status);
    logits_ = results[0];
    for (size_t i = 0; !in_place_ && i < parts_.size(); ++i) Take(&parts_[i], results[i + 1]);
  }

  // A value that the runtime made in place of the one before.
  void Take(Part* part, OrtValue* value) const {
    const TensorView view = calls_.View(part->present, value);
    if (view.type != part->type || view.shape.size() != 4 || view.shape[1] != part->heads || view.shape[3] != part->size) {
      Fail(ErrorClass::kCheckpoint,
           part->present + " must be of the shape of " + part->past + ", got " + DescribeTensor(*view.type, view.shape));
    }
    ort::ReleaseValue::Call(calls_.api(), part->value);
    part->memory.reset();
    part->value = value;
    part->room = view.shape[2];
  }

  // Gives a part `room` places, the first `used` of which are as they were.
  void Resize(Part* part, int64_t room, int64_t used) const {
    Part made{part->past, part->present, part->type, part->heads, part->size, room, nullptr, nullptr};
    // Pages that nothing was written to take no memory.
    made.memory.reset(static_cast<uint8_t*>(std::calloc(std::max<size_t>(made.Bytes(), 1), 1)));
    if (made.memory == nullptr) {
      Fail(ErrorClass::kDevice, "no memory is left for the cache of " + std::to_string(room) + " tokens");
    }
    if (used > 0) {
      const auto* old = static_cast<const uint8_t*>(calls_.View(part->past, part->value).data);
      const size_t from = static_cast<size_t>(part->room) * part->Place(), to = static_cast<size_t>(room) * part->Place();
      for (size_t head = 0; head < static_cast<size_t>(part->heads); ++head) {
        std::memcpy(made.memory.get() + head * to, old + head * from, static_cast<size_t>(used) * part->Place());
      }
    }
    const int64_t shape[] = {1, part->heads, room, part->size};
    made.value = calls_.MakeValue(part->type, made.memory.get(), made.Bytes(), shape, 4);
    ort::ReleaseValue::Call(calls_.api(), part->value);
    *part = std::move(made);
  }

  const OrtCalls& calls_;
  OrtSession* session_;
  const bool in_place_;
  std::vector<Part> parts_;
  std::vector<int64_t> mask_;  // ones: as many of them are given as there are tokens
  OrtValue* logits_ = nullptr;
};

// "past_key_values.3.key" as "present.3.key".
std::string PresentOf(const std::string& past) { return kPresent + past.substr(std::strlen(kPast)); }

bool IsPart(const TensorSpec& spec) {
  return spec.name.rfind(kPast, 0) == 0 && spec.shape.size() == 4 && spec.shape[1].size > 0 && spec.shape[3].size > 0;
}

}  // namespace

std::unique_ptr<Decoder> MakeOnnxRuntimeDecoder(const OrtCalls& calls, OrtSession* session, const Request& request,
                                                const std::vector<TensorSpec>& inputs, const std::vector<std::string>& outputs) {
  std::vector<Part> parts;
  std::vector<std::string> expected = {"logits"};
  bool right = inputs.size() > 2 && inputs[0].name == "input_ids" && inputs[1].name == "attention_mask";
  for (size_t i = 2; right && i < inputs.size(); ++i) {
    right = IsPart(inputs[i]);
    if (!right) break;
    expected.push_back(PresentOf(inputs[i].name));
    parts.push_back(
        {inputs[i].name, expected.back(), inputs[i].type, inputs[i].shape[1].size, inputs[i].shape[3].size, 0, nullptr, nullptr});
  }
  if (!right || outputs != expected) {
    Fail(ErrorClass::kCheckpoint,
         request.artifact +
             " must take tokens, a mask, and keys and values of past tokens, and give logits and these, as "
             "edgecomp export writes it: export it again");
  }
  return std::make_unique<OnnxRuntimeDecoder>(calls, session, request, std::move(parts));
}

}  // namespace edgecomp::runner
