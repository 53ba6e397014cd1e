#include "runner/decoder.h"

#include <algorithm>
#include <string>

#include "runner/fail.h"

namespace edgecomp::runner {
Logits Decoder::Feed(const int64_t* tokens, int64_t count) {
  if (count < 1) Fail(ErrorClass::kConfig, "a language model must be given at least one token, got none");
  if (length_ + count > context_) {
    Fail(ErrorClass::kModel, "a text must have " + std::to_string(context_) + " tokens at most, and with " + std::to_string(count) +
                                 " more this one has " + std::to_string(length_ + count));
  }
  Logits logits;
  for (int64_t start = 0; start < count; start += chunk_) {
    const int64_t part = std::min(chunk_, count - start);
    logits = Run(tokens + start, part, length_);
    length_ += part;
  }
  return logits;
}

void Decoder::Rewind(int64_t length) {
  if (length >= length_) return;
  Shorten(length);
  length_ = length;
}

}  // namespace edgecomp::runner
