// A language model that keeps what past tokens left (keys and values), whatever runtime runs it: what its tests and texts feed.
#ifndef EDGECOMP_RUNNER_DECODER_H_
#define EDGECOMP_RUNNER_DECODER_H_

#include <cstddef>
#include <cstdint>

namespace edgecomp::runner {

// Of what follows the last token, for each token that there is.
struct Logits {
  const float* data = nullptr;
  size_t count = 0;
};

class Decoder {
 public:
  // Tokens that a model is given at once at most: logits of all of them may be in memory together, as in
  // edgecomp/generation/session.py.
  static constexpr int64_t kChunk = 512;

  // `context`: tokens that a text may have at most. `chunk`: that the model takes at once.
  explicit Decoder(int64_t context, int64_t chunk = kChunk) : context_(context), chunk_(chunk) {}
  virtual ~Decoder() = default;

  // Gives `count` tokens, at least one, behind those before, and returns logits that are valid until the next call. Fails with
  // ModelError where the context does not hold them or the runtime fails, with DeviceError where no memory is left.
  Logits Feed(const int64_t* tokens, int64_t count);

  // Forgets all but the first `length` tokens; 0 begins anew.
  void Rewind(int64_t length);

  // Tokens that were given and not forgotten.
  int64_t Length() const { return length_; }

  // Memory for keys and values; 0 where they lie in the program's own buffers.
  virtual int64_t CacheBytes() const = 0;

 protected:
  int64_t Context() const { return context_; }

  // One call of the model: `count` tokens behind `before` others.
  virtual Logits Run(const int64_t* tokens, int64_t count, int64_t before) = 0;

  // Makes the cache one of `length` tokens, fewer than it holds.
  virtual void Shorten(int64_t length) = 0;

 private:
  const int64_t context_, chunk_;
  int64_t length_ = 0;
};

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_DECODER_H_
