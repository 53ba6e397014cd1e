// The choice of a token, and what a decoder does for every runtime. That both are as in Python: tests/generation/test_on_device.py.
#include "runner/sampling.h"

#include <cmath>
#include <vector>

#include "check.h"
#include "runner/decoder.h"

namespace {

using edgecomp::runner::Choose;
using edgecomp::runner::Decoder;
using edgecomp::runner::Logits;
using edgecomp::runner::Sampling;

// Logits of these probabilities.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double probability : probabilities) logits.push_back(static_cast<float>(std::log(probability)));
  return logits;
}

int64_t Chosen(const std::vector<float>& logits, const Sampling& sampling, double number) {
  return Choose({logits.data(), logits.size()}, sampling, number);
}

// Notes how it was called.
class NotedDecoder : public Decoder {
 public:
  NotedDecoder() : Decoder(/*context=*/10, /*chunk=*/3) {}
  int64_t CacheBytes() const override { return 0; }

  std::vector<std::vector<int64_t>> runs;  // tokens before, tokens given
  std::vector<int64_t> shortened;

 protected:
  Logits Run(const int64_t*, int64_t count, int64_t before) override {
    runs.push_back({before, count});
    return {};
  }
  void Shorten(int64_t length) override { shortened.push_back(length); }
};

}  // namespace

TEST(TheLikeliestTokenIsTheFirstOfEqualOnes) {
  CHECK(Chosen({0.f, 3.f, 3.f, 1.f}, {}, 0.9) == 1);
  CHECK(Chosen({0.f, 3.f, 3.f, 1.f}, {1.0, 1, 1.0}, 0.9) == 1);
}

TEST(ANumberChoosesByTheProbabilities) {
  const std::vector<float> logits = LogitsOf({0.1, 0.6, 0.05, 0.25});  // likeliest first: 1, 3, 0, 2
  CHECK(Chosen(logits, {1.0, 0, 1.0}, 0.0) == 1);
  CHECK(Chosen(logits, {1.0, 0, 1.0}, 0.59) == 1);
  CHECK(Chosen(logits, {1.0, 0, 1.0}, 0.61) == 3);
  CHECK(Chosen(logits, {1.0, 0, 1.0}, 0.94) == 0);
  CHECK(Chosen(logits, {1.0, 0, 1.0}, 0.999) == 2);
  CHECK(Chosen(logits, {1.0, 2, 1.0}, 0.999) == 3);
  CHECK(Chosen(logits, {1.0, 0, 0.7}, 0.999) == 3);
  CHECK(Chosen(logits, {1.0, 0, 0.5}, 0.999) == 1);
  CHECK(Chosen(logits, {100.0, 0, 1.0}, 0.999) == 2);
  CHECK(Chosen(logits, {1.0, 100, 1.0}, 0.999) == 2);
}

TEST(ADecoderGivesTokensInParts) {
  NotedDecoder decoder;
  const std::vector<int64_t> tokens(8, 1);
  decoder.Feed(tokens.data(), 8);
  CHECK((decoder.runs == std::vector<std::vector<int64_t>>{{0, 3}, {3, 3}, {6, 2}}));
  CHECK(decoder.Length() == 8);
  decoder.Rewind(8);
  CHECK(decoder.shortened.empty());
  decoder.Rewind(4);
  decoder.Feed(tokens.data(), 1);
  CHECK(decoder.shortened == std::vector<int64_t>{4});
  CHECK((decoder.runs.back() == std::vector<int64_t>{4, 1}));
}
