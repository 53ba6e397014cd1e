// Attention with a cache: every variant against a plain computation, between guards.
#include "kernels/attention/attention.h"

#include <cmath>
#include <string>

#include "check.h"
#include "support.h"

namespace edgecomp::test {
namespace {

struct Sizes {
  int64_t batch, sequence, heads, kv_heads, size, places, rotated;
  int64_t window = 0;
  float cap = 0;
};

constexpr Sizes kSizes[] = {
    {1, 1, 9, 3, 64, 300, 32}, {2, 3, 4, 2, 20, 40, 10}, {1, 33, 3, 1, 80, 260, 0, 100, 4.0f},
    {1, 1, 2, 2, 1, 5, 0},     {2, 2, 34, 2, 48, 20, 8}, {1, 1, 4, 4, 16, 700, 8, 3},
};
constexpr CacheType kTypes[] = {{EC_TYPE_FLOAT32}, {EC_TYPE_FLOAT16}, {EC_TYPE_INT8}};

// A row of a cache as floats, by what its specification says.
std::vector<float> Decoded(CacheType type, const uint8_t* row, int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    float& value = values[static_cast<size_t>(i)];
    if (type.element == EC_TYPE_FLOAT32) {
      std::memcpy(&value, row + 4 * i, sizeof(value));
    } else if (type.element == EC_TYPE_FLOAT16) {
      uint16_t half;
      std::memcpy(&half, row + 2 * i, sizeof(half));
      value = FloatOfHalf(half);
    } else {
      const auto* bytes = reinterpret_cast<const int8_t*>(row);
      value = static_cast<float>(bytes[i]) * (1 + static_cast<float>(bytes[size + 1]) / 128) *
              std::exp2(static_cast<float>(bytes[size]));
    }
  }
  return values;
}

// A call of both operators on random tokens behind a random cache.
class Call {
 public:
  Call(const Sizes& sizes, CacheType type, Random* random)
      : s_(sizes),
        type_(type),
        width_((sizes.heads + 2 * sizes.kv_heads) * sizes.size),
        row_(type.RowBytes(sizes.size)),
        x_(random->Reals(sizes.batch * sizes.sequence * width_)),
        cos_(random->Reals(sizes.places * sizes.rotated)),
        sin_(random->Reals(sizes.places * sizes.rotated)) {
    for (int64_t row = 0; row < s_.batch; ++row) {
      before_.push_back(static_cast<int32_t>(random->Between(row == 0 ? s_.places - s_.sequence : 0, s_.places - s_.sequence)));
    }
    const int64_t rows = s_.batch * s_.kv_heads * s_.places;
    const std::vector<float> values = random->Reals(2 * rows * s_.size);
    for (int kind = 0; kind < 2; ++kind) {
      cache_[kind].resize(static_cast<size_t>(rows * row_));
      for (int64_t i = 0; i < rows; ++i)
        Encode(&values[static_cast<size_t>((kind * rows + i) * s_.size)], &cache_[kind][static_cast<size_t>(i * row_)]);
    }
  }

  // The cache of keys (or values) with the new ones, by the kernels of `isa`, written in place or not.
  std::vector<uint8_t> Append(int kind, Isa isa, bool in_place) const {
    Guarded<float> x(x_), cos(cos_), sin(sin_);
    Guarded<uint8_t> past(cache_[kind], Alignment()), made(static_cast<int64_t>(cache_[kind].size()), Alignment());
    Guarded<int32_t> before(before_);
    KvAppend a = {type_,
                  s_.batch,
                  s_.kv_heads,
                  s_.size,
                  s_.places,
                  s_.places,
                  s_.sequence,
                  width_,
                  past.data(),
                  x.data() + (s_.heads + kind * s_.kv_heads) * s_.size,
                  before.data(),
                  {cos.data(), sin.data(), s_.rotated},
                  in_place ? past.data() : made.data()};
    RunKvAppend(a, isa, TwoThreads());
    CHECK(past.GuardsIntact() && made.GuardsIntact() && x.GuardsIntact());
    const auto* bytes = static_cast<const uint8_t*>(a.present);
    return {bytes, bytes + cache_[kind].size()};
  }

  std::vector<float> Attend(Isa isa, const std::vector<uint8_t> (&cache)[2], const ec_parallel* parallel) const {
    Guarded<float> x(x_), cos(cos_), sin(sin_), y(s_.batch * s_.sequence * s_.heads * s_.size);
    Guarded<uint8_t> keys(cache[0], Alignment()), values(cache[1], Alignment());
    Guarded<int32_t> before(before_);
    const KvAttention a = {
        type_,       s_.batch, s_.heads, s_.kv_heads, s_.size,       s_.places,     s_.places,
        s_.sequence, width_,   x.data(), keys.data(), values.data(), before.data(), {cos.data(), sin.data(), s_.rotated},
        s_.window,   0.3f,     s_.cap,   y.data()};
    size_t bytes = 0;
    CHECK(KvAttentionWorkspace(a, parallel, &bytes) == EC_OK);
    Guarded<float> workspace(static_cast<int64_t>(bytes / sizeof(float)));
    RunKvAttention(a, isa, parallel, workspace.data());
    CHECK(y.GuardsIntact() && workspace.GuardsIntact() && keys.GuardsIntact() && values.GuardsIntact());
    return {y.data(), y.data() + y.bytes() / sizeof(float)};
  }

  // The same by sums in double precision.
  std::vector<float> Expected(const std::vector<uint8_t> (&cache)[2]) const {
    std::vector<float> y;
    for (int64_t row = 0; row < s_.batch; ++row) {
      for (int64_t i = 0; i < s_.sequence; ++i) {
        for (int64_t head = 0; head < s_.heads; ++head) {
          const std::vector<double> found = Head(cache, row, i, head);
          y.insert(y.end(), found.begin(), found.end());
        }
      }
    }
    return y;
  }

 private:
  size_t Alignment() const { return static_cast<size_t>(type_.RowBytes(1) / type_.RowElements(1)); }

  void Encode(const float* values, uint8_t* to) const {
    if (type_.element == EC_TYPE_INT8) return EncodeInt8(values, s_.size, reinterpret_cast<int8_t*>(to));
    for (int64_t i = 0; i < s_.size; ++i) {
      const uint16_t half = HalfOfFloat(values[i]);
      if (type_.element == EC_TYPE_FLOAT16) std::memcpy(to + 2 * i, &half, sizeof(half));
      if (type_.element == EC_TYPE_FLOAT32) std::memcpy(to + 4 * i, &values[i], sizeof(float));
    }
  }

  std::vector<double> Head(const std::vector<uint8_t> (&cache)[2], int64_t row, int64_t i, int64_t head) const {
    const int64_t position = before_[static_cast<size_t>(row)] + i, kv_head = head * s_.kv_heads / s_.heads;
    std::vector<float> query(&x_[static_cast<size_t>((row * s_.sequence + i) * width_ + head * s_.size)],
                             &x_[static_cast<size_t>((row * s_.sequence + i) * width_ + head * s_.size)] + s_.size);
    Turn(cos_.data() + position * s_.rotated, sin_.data() + position * s_.rotated, s_.rotated, query.data());
    std::vector<double> weights, mixed(static_cast<size_t>(s_.size));
    double sum = 0;
    const int64_t first = s_.window > 0 && position >= s_.window ? position - s_.window + 1 : 0;
    for (int64_t j = first; j <= position; ++j) {
      const int64_t at = ((row * s_.kv_heads + kv_head) * s_.places + j) * row_;
      const std::vector<float> key = Decoded(type_, &cache[0][static_cast<size_t>(at)], s_.size);
      double score = 0;
      for (size_t k = 0; k < key.size(); ++k) score += static_cast<double>(query[k]) * static_cast<double>(key[k]);
      score *= 0.3f;
      if (s_.cap > 0) score = static_cast<double>(s_.cap) * std::tanh(score / static_cast<double>(s_.cap));
      weights.push_back(std::exp(score));
      sum += weights.back();
    }
    for (int64_t j = first; j <= position; ++j) {
      const int64_t at = ((row * s_.kv_heads + kv_head) * s_.places + j) * row_;
      const std::vector<float> value = Decoded(type_, &cache[1][static_cast<size_t>(at)], s_.size);
      for (size_t k = 0; k < value.size(); ++k)
        mixed[k] += weights[static_cast<size_t>(j - first)] / sum * static_cast<double>(value[k]);
    }
    return mixed;
  }

  const Sizes s_;
  const CacheType type_;
  const int64_t width_, row_;
  const std::vector<float> x_, cos_, sin_;
  std::vector<int32_t> before_;
  std::vector<uint8_t> cache_[2];
};

TEST(AttentionOfEveryVariantIsThatOfPlainSums) {
  Random random(7);
  for (const Sizes& sizes : kSizes) {
    for (const CacheType type : kTypes) {
      const Call call(sizes, type, &random);
      const std::vector<uint8_t> cache[2] = {call.Append(0, Isa::kRef, false), call.Append(1, Isa::kRef, false)};
      const std::vector<float> expected = call.Expected(cache);
      for (const Isa isa : AvailableIsas()) {
        CHECK(call.Append(0, isa, true) == cache[0]);
        CHECK(call.Append(1, isa, false) == cache[1]);
        const std::vector<float> alone = call.Attend(isa, cache, nullptr);
        CHECK_MESSAGE(RelativeDifference(alone, expected) < 1e-5, "%s, heads of %lld, type %d: %g", IsaName(isa),
                      static_cast<long long>(sizes.size), static_cast<int>(type.element), RelativeDifference(alone, expected));
        CHECK(call.Attend(isa, cache, TwoThreads()) == alone);
      }
    }
  }
}

TEST(HalvesAreRoundedToTheNearestInEveryVariant) {
  Random random(3);
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float value = FloatOfHalf(static_cast<uint16_t>(half));
    CHECK(value != value ? (HalfOfFloat(value) & 0x7fff) > 0x7c00 : HalfOfFloat(value) == half);
  }
  std::vector<float> values = {65519.0f, 65520.0f, 1e30f, -1e30f,         2.9e-8f,       3.0e-8f,
                               6.1e-5f,  0.0f,     -0.0f, 1.00048828125f, 1.00146484375f};
  while (values.size() < 1003) values.push_back(std::ldexp(random.Real(), static_cast<int>(random.Between(-30, 20))));
  for (const Isa isa : AvailableIsas()) {
    std::vector<uint16_t> found(values.size());
    AttentionKernelsFor(isa).encode_half(values.data(), static_cast<int64_t>(values.size()), found.data());
    for (size_t i = 0; i < values.size(); ++i) {
      CHECK_MESSAGE(found[i] == HalfOfFloat(values[i]), "%s: %g", IsaName(isa), static_cast<double>(values[i]));
    }
  }
}

TEST(WhatIsNotFiniteShowsInItsHeadsOnly) {
  Random random(5);
  const Sizes sizes = {1, 2, 4, 2, 16, 9, 0};
  for (const float wrong : {NAN, INFINITY}) {
    std::vector<float> x = random.Reals(2 * 8 * 16), cache = random.Reals(2 * 9 * 16), y(2 * 4 * 16);
    x[3] = wrong;  // the first head of the first token
    const int32_t before[] = {7};
    for (const Isa isa : AvailableIsas()) {
      const KvAttention a = {{EC_TYPE_FLOAT32}, 1,      4,  2, 16,   9, 9,       2, 128, x.data(), cache.data(),
                             cache.data(),      before, {}, 0, 1.0f, 0, y.data()};
      size_t bytes = 0;
      CHECK(KvAttentionWorkspace(a, nullptr, &bytes) == EC_OK);
      std::vector<float> workspace(bytes / sizeof(float));
      RunKvAttention(a, isa, nullptr, workspace.data());
      for (size_t i = 0; i < y.size(); ++i) CHECK((y[i] != y[i]) == (i < static_cast<size_t>(sizes.size)));
    }
  }
}

}  // namespace
}  // namespace edgecomp::test
