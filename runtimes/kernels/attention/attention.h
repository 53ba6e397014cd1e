// Attention with a cache of keys and values: what it is given, and its inner loops for an instruction set.
#ifndef EDGECOMP_KERNELS_ATTENTION_ATTENTION_H_
#define EDGECOMP_KERNELS_ATTENTION_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "core/isa.h"
#include "edgecomp/edgecomp.h"
#include "kernels/attention/cache_rows.h"

namespace edgecomp {

// Places that are worked on at once; their scores, keys and values lie in a task's memory.
constexpr int64_t kChunk = 128;
// Rows are as long as the longest vector asks for, zeros behind them.
constexpr int64_t kRowMultiple = 16;

// Angles of positions: cos and sin are [count, half].
struct Rotary {
  const float* cos;
  const float* sin;
  int64_t half;  // 0: nothing is turned
};

// kv_append: past is [batch, heads, places, row], present [batch, heads, room, row], which may be the past where room is places.
struct KvAppend {
  CacheType type;
  int64_t batch, heads, size, places, room, sequence, width;
  const void* past;
  const float* x;  // of the first head's first value; rows are `width` apart
  const int32_t* before;
  Rotary rotary;
  void* present;
};
void RunKvAppend(const KvAppend& append, Isa isa, const ec_parallel* parallel);

// kv_attention: x is [batch, sequence, width], y [batch, sequence, heads size].
struct KvAttention {
  CacheType type;
  int64_t batch, heads, kv_heads, size, places, used, sequence, width;  // used: places that some row sees
  const float* x;
  const void* keys;
  const void* values;
  const int32_t* before;
  Rotary rotary;
  int64_t window;  // 0: none
  float scale, cap;
  float* y;
};
ec_status KvAttentionWorkspace(const KvAttention& attention, const ec_parallel* parallel, size_t* bytes);
void RunKvAttention(const KvAttention& attention, Isa isa, const ec_parallel* parallel, void* workspace);

// Sums of some rows of queries at once, kTogether at most, along rows of a cache, which are `bytes` apart and of `size` values, a
// multiple of kRowMultiple. Rows in int8 count without their scales.
constexpr int64_t kTogether = 4;
struct RowSums {
  // scores[r * kChunk + j] = sum over i < size of queries[r * size + i] * keys[j][i]
  void (*scores)(const float* queries, int64_t rows, const void* keys, int64_t bytes, int64_t places, int64_t size, float* scores);
  // sums[r * size + i] += sum over j < places of weights[r * kChunk + j] * values[j][i]
  void (*mix)(const float* weights, int64_t rows, const void* values, int64_t bytes, int64_t places, int64_t size, float* sums);
};

struct AttentionKernels {
  RowSums float32, float16, int8;
  // Any number of values.
  void (*encode_half)(const float* values, int64_t count, uint16_t* to);
  // `size` values as float32, zeros up to a multiple of kRowMultiple behind them.
  void (*decode_half)(const uint16_t* row, int64_t size, float* to);
  void (*decode_int8)(const int8_t* row, int64_t size, float scale, float* to);
  // Of scores [first, last) of a row of kChunk: their largest; NaN where one is not finite.
  float (*largest)(const float* scores, int64_t first, int64_t last);
  // Makes exp(score - shift) of them, 0 of the row's others up to `places`, and gives the sum.
  float (*weights)(float* scores, int64_t first, int64_t last, int64_t places, float shift);
};

const AttentionKernels& AttentionKernelsFor(Isa isa);
Isa AttentionIsaFor(Isa isa);

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_ATTENTION_ATTENTION_H_
