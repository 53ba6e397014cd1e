#include "kernels/attention/attention.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "core/checked_math.h"
#include "core/parallel.h"

namespace edgecomp {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
// Rows of queries that are worked on at once, if a head of keys has no more than that for one token.
constexpr int64_t kRows = 16;
// Where there are few queries, places are shared out in parts of so many, which depends on nothing but sizes.
constexpr int64_t kPart = 2 * kChunk;
constexpr int64_t kFewUnits = 16;

constexpr int64_t RoundUp(int64_t value, int64_t multiple) { return CeilDiv(value, multiple) * multiple; }

const char* At(const void* base, int64_t bytes) { return static_cast<const char*>(base) + bytes; }
char* At(void* base, int64_t bytes) { return static_cast<char*>(base) + bytes; }

// How a call is cut: units of (row of the batch, head of keys, some tokens, part of the places).
struct Cut {
  explicit Cut(const KvAttention& a)
      : group(a.heads / a.kv_heads),
        tokens(group >= kRows ? 1 : kRows / group),
        tiles(CeilDiv(a.sequence, tokens)),
        rows(tokens * group),
        padded(RoundUp(a.size, kRowMultiple)),
        parts(a.batch * a.kv_heads * tiles < kFewUnits ? CeilDiv(a.used, kPart) : 1),
        units(a.batch * a.kv_heads * tiles * parts) {}

  int64_t group, tokens, tiles, rows, padded, parts, units;

  // Floats of a unit's sums: of each row, the largest score, the sum of weights, and the weighted values.
  CheckedSize StateFloats() const { return CheckedSize(rows) * CheckedSize(padded + 2); }
  // Floats of a task: queries, scores, keys, values, and sums where they are no unit's own.
  CheckedSize TaskFloats() const {
    return CheckedSize(rows) * CheckedSize(padded + kChunk) + CheckedSize(2 * kChunk) * CheckedSize(padded) + StateFloats();
  }
};

// What is found so far of some rows of queries.
struct Sums {
  float* largest;  // [rows]
  float* weights;  // [rows]
  float* values;   // [rows, padded]
};

Sums SumsAt(float* memory, const Cut& cut) { return {memory, memory + cut.rows, memory + 2 * cut.rows}; }

class Unit {
 public:
  Unit(const KvAttention& attention, const Cut& cut, const AttentionKernels& kernels, float* memory)
      : a_(attention), cut_(cut), kernels_(kernels) {
    queries_ = memory;
    scores_ = queries_ + cut.rows * cut.padded;
    keys_ = scores_ + cut.rows * kChunk;
    values_ = keys_ + kChunk * cut.padded;
    own_ = values_ + kChunk * cut.padded;
  }

  // Unit `index`; its sums go to `states`, or where the places are one part its output is written.
  void Run(int64_t index, float* states) {
    const int64_t part = index % cut_.parts, tile = index / cut_.parts % cut_.tiles;
    head_ = index / cut_.parts / cut_.tiles % a_.kv_heads;
    row_ = index / cut_.parts / cut_.tiles / a_.kv_heads;
    first_ = tile * cut_.tokens;
    count_ = a_.sequence - first_ < cut_.tokens ? a_.sequence - first_ : cut_.tokens;
    const bool alone = cut_.parts == 1;
    const Sums sums = SumsAt(alone ? own_ : states + index * static_cast<int64_t>(cut_.StateFloats().value()), cut_);
    for (int64_t r = 0; r < cut_.rows; ++r) sums.largest[r] = kLowest;
    std::memset(sums.weights, 0, sizeof(float) * static_cast<size_t>(cut_.rows * (cut_.padded + 1)));
    const int64_t last_token = a_.before[row_] + first_ + count_ - 1;
    const int64_t from = part * kPart, to = alone ? last_token + 1 : Least(from + kPart, last_token + 1);
    int64_t j = FirstSeen(a_.before[row_] + first_) / kChunk * kChunk;
    if (j < from) j = from;
    if (j < to) ReadQueries();
    for (; j < to; j += kChunk) RunChunk(j, Least(kChunk, to - j), sums);
    if (alone) Write(sums);
  }

  // What the parts of a unit's rows found, together, by the first one's index.
  void Join(int64_t index, float* states) {
    const auto stride = static_cast<int64_t>(cut_.StateFloats().value());
    const int64_t tile = index / cut_.parts % cut_.tiles;
    head_ = index / cut_.parts / cut_.tiles % a_.kv_heads;
    row_ = index / cut_.parts / cut_.tiles / a_.kv_heads;
    first_ = tile * cut_.tokens;
    count_ = a_.sequence - first_ < cut_.tokens ? a_.sequence - first_ : cut_.tokens;
    const Sums sums = SumsAt(states + index * stride, cut_);
    for (int64_t part = 1; part < cut_.parts; ++part) {
      const Sums other = SumsAt(states + (index + part) * stride, cut_);
      for (int64_t r = 0; r < count_ * cut_.group; ++r) {
        // A part without a place that the row sees has no weights. NaN is the larger one.
        if (other.largest[r] == kLowest) continue;
        const float largest = other.largest[r] <= sums.largest[r] ? sums.largest[r] : other.largest[r];
        const float mine = std::exp(sums.largest[r] - largest), others = std::exp(other.largest[r] - largest);
        float* to = sums.values + r * cut_.padded;
        const float* from = other.values + r * cut_.padded;
        for (int64_t i = 0; i < a_.size; ++i) to[i] = to[i] * mine + from[i] * others;
        sums.weights[r] = sums.weights[r] * mine + other.weights[r] * others;
        sums.largest[r] = largest;
      }
    }
    Write(sums);
  }

 private:
  static int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

  // The first place that the token at `position` sees.
  int64_t FirstSeen(int64_t position) const { return a_.window > 0 && position >= a_.window ? position - a_.window + 1 : 0; }

  void ReadQueries() {
    for (int64_t t = 0; t < count_; ++t) {
      const int64_t position = a_.before[row_] + first_ + t;
      for (int64_t h = 0; h < cut_.group; ++h) {
        float* query = queries_ + (t * cut_.group + h) * cut_.padded;
        const float* from = a_.x + (row_ * a_.sequence + first_ + t) * a_.width + (head_ * cut_.group + h) * a_.size;
        std::memcpy(query, from, sizeof(float) * static_cast<size_t>(a_.size));
        const int64_t half = a_.rotary.half;
        if (half > 0) Turn(a_.rotary.cos + position * half, a_.rotary.sin + position * half, half, query);
        for (int64_t i = 0; i < a_.size; ++i) query[i] *= a_.scale;
        for (int64_t i = a_.size; i < cut_.padded; ++i) query[i] = 0;
      }
    }
  }

  // The row of a place.
  const char* Row(const void* cache, int64_t place) const {
    return At(cache, ((row_ * a_.kv_heads + head_) * a_.places + place) * a_.type.RowBytes(a_.size));
  }

  // Rows of the cache as float32: the cache's own where they are so.
  const float* Decoded(const char* rows, int64_t places, float* to) const {
    const int64_t bytes = a_.type.RowBytes(a_.size);
    if (a_.type.element == EC_TYPE_FLOAT32 && cut_.padded == a_.size) return reinterpret_cast<const float*>(rows);
    for (int64_t j = 0; j < places; ++j) {
      float* row = to + j * cut_.padded;
      const char* from = rows + j * bytes;
      switch (a_.type.element) {
        case EC_TYPE_FLOAT16:
          kernels_.decode_half(reinterpret_cast<const uint16_t*>(from), a_.size, row);
          break;
        case EC_TYPE_INT8: {
          const auto* values = reinterpret_cast<const int8_t*>(from);
          kernels_.decode_int8(values, a_.size, ScaleOf(values[a_.size], values[a_.size + 1]), row);
          break;
        }
        default:
          std::memcpy(row, from, sizeof(float) * static_cast<size_t>(a_.size));
          for (int64_t i = a_.size; i < cut_.padded; ++i) row[i] = 0;
      }
    }
    return to;
  }

  void RunChunk(int64_t first, int64_t places, const Sums& sums) {
    const int64_t rows = count_ * cut_.group;
    // Few rows are added up straight from the cache, many from rows that are decoded once for all of them.
    const bool decoded = rows > kTogether || cut_.padded != a_.size;
    const int64_t bytes = decoded ? static_cast<int64_t>(sizeof(float)) * cut_.padded : a_.type.RowBytes(a_.size);
    const bool scaled = !decoded && a_.type.element == EC_TYPE_INT8;
    const RowSums& sum = decoded ? kernels_.float32 : OfCache();
    const char *keys = Row(a_.keys, first), *values = Row(a_.values, first);
    const void* key_rows = decoded ? Decoded(keys, places, keys_) : static_cast<const void*>(keys);
    for (int64_t r = 0; r < rows; r += kTogether) {
      sum.scores(queries_ + r * cut_.padded, Least(kTogether, rows - r), key_rows, bytes, places, cut_.padded,
                 scores_ + r * kChunk);
    }
    if (scaled) Scale(keys, rows, places);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t position = a_.before[row_] + first_ + r / cut_.group;
      const int64_t seen = FirstSeen(position) - first;
      Weigh(r, seen > 0 ? seen : 0, Least(position + 1 - first, places), places, sums);
    }
    if (scaled) Scale(values, rows, places);
    const void* value_rows = decoded ? Decoded(values, places, values_) : static_cast<const void*>(values);
    for (int64_t r = 0; r < rows; r += kTogether) {
      sum.mix(scores_ + r * kChunk, Least(kTogether, rows - r), value_rows, bytes, places, cut_.padded,
              sums.values + r * cut_.padded);
    }
  }

  const RowSums& OfCache() const {
    return a_.type.element == EC_TYPE_FLOAT16 ? kernels_.float16
           : a_.type.element == EC_TYPE_INT8  ? kernels_.int8
                                              : kernels_.float32;
  }

  // Rows in int8 were added up without their scales, or will be: these come to their scores, or weights.
  void Scale(const char* cache, int64_t rows, int64_t places) {
    const int64_t bytes = a_.type.RowBytes(a_.size);
    for (int64_t j = 0; j < places; ++j) {
      const auto* row = reinterpret_cast<const int8_t*>(cache + j * bytes);
      const float scale = ScaleOf(row[a_.size], row[a_.size + 1]);
      for (int64_t r = 0; r < rows; ++r) scores_[r * kChunk + j] *= scale;
    }
  }

  // The scores [from, to) of a row become weights, and what was found before is brought to the same largest score.
  void Weigh(int64_t r, int64_t from, int64_t to, int64_t places, const Sums& sums) {
    float* scores = scores_ + r * kChunk;
    if (from >= to) {
      for (int64_t j = 0; j < places; ++j) scores[j] = 0;
      return;
    }
    if (a_.cap > 0) {
      for (int64_t j = from; j < to; ++j) scores[j] = a_.cap * std::tanh(scores[j] / a_.cap);
    }
    const float found = kernels_.largest(scores, from, to);
    const float largest = found <= sums.largest[r] ? sums.largest[r] : found;  // NaN where it is so
    const float before = std::exp(sums.largest[r] - largest);
    if (before != 1.0f) {
      float* values = sums.values + r * cut_.padded;
      for (int64_t i = 0; i < a_.size; ++i) values[i] *= before;
      sums.weights[r] *= before;
    }
    sums.weights[r] += kernels_.weights(scores, from, to, places, largest) + (largest - largest);  // its NaN stays
    sums.largest[r] = largest;
  }

  void Write(const Sums& sums) const {
    for (int64_t r = 0; r < count_ * cut_.group; ++r) {
      const float inverse = 1 / sums.weights[r];
      float* y = a_.y + ((row_ * a_.sequence + first_ + r / cut_.group) * a_.heads + head_ * cut_.group + r % cut_.group) * a_.size;
      const float* values = sums.values + r * cut_.padded;
      for (int64_t i = 0; i < a_.size; ++i) y[i] = values[i] * inverse;
    }
  }

  const KvAttention& a_;
  const Cut& cut_;
  const AttentionKernels& kernels_;
  float *queries_, *scores_, *keys_, *values_, *own_;
  int64_t row_ = 0, head_ = 0, first_ = 0, count_ = 0;
};

void AppendRow(const KvAppend& a, const AttentionKernels& kernels, int64_t row, int64_t head, int64_t i) {
  float values[kLargestHead];
  std::memcpy(values, a.x + (row * a.sequence + i) * a.width + head * a.size, sizeof(float) * static_cast<size_t>(a.size));
  const int64_t place = a.before[row] + i, half = a.rotary.half;
  if (half > 0) Turn(a.rotary.cos + place * half, a.rotary.sin + place * half, half, values);
  char* to = At(a.present, ((row * a.heads + head) * a.room + place) * a.type.RowBytes(a.size));
  switch (a.type.element) {
    case EC_TYPE_FLOAT16:
      kernels.encode_half(values, a.size, reinterpret_cast<uint16_t*>(to));
      break;
    case EC_TYPE_INT8:
      EncodeInt8(values, a.size, reinterpret_cast<int8_t*>(to));
      break;
    default:
      std::memcpy(to, values, sizeof(float) * static_cast<size_t>(a.size));
  }
}

}  // namespace

void RunKvAppend(const KvAppend& a, Isa isa, const ec_parallel* parallel) {
  const AttentionKernels& kernels = AttentionKernelsFor(isa);
  const int64_t heads = a.batch * a.heads, row_bytes = a.type.RowBytes(a.size);
  const bool moved = a.present != a.past;
  // Some rows are less work than to ask for threads.
  constexpr int64_t kLittle = 64;
  const bool little = !moved && heads * a.sequence < kLittle;
  ParallelFor(little ? nullptr : parallel, heads, [&](int64_t index) {
    if (moved) {
      char* to = At(a.present, index * a.room * row_bytes);
      const auto kept = static_cast<size_t>(a.places * row_bytes);
      if (kept > 0) std::memcpy(to, At(a.past, index * a.places * row_bytes), kept);
      std::memset(to + kept, 0, static_cast<size_t>((a.room - a.places) * row_bytes));
    }
    for (int64_t i = 0; i < a.sequence; ++i) AppendRow(a, kernels, index / a.heads, index % a.heads, i);
  });
}

ec_status KvAttentionWorkspace(const KvAttention& a, const ec_parallel* parallel, size_t* bytes) {
  const Cut cut(a);
  const int64_t tasks = cut.units < MaxTasks(parallel) ? cut.units : MaxTasks(parallel);
  CheckedSize floats = CheckedSize(tasks) * cut.TaskFloats();
  if (cut.parts > 1) floats += CheckedSize(cut.units) * cut.StateFloats();
  floats *= CheckedSize(sizeof(float));
  if (!floats.fits()) return EC_ERR_OVERFLOW;
  *bytes = floats.value();
  return EC_OK;
}

void RunKvAttention(const KvAttention& a, Isa isa, const ec_parallel* parallel, void* workspace) {
  const Cut cut(a);
  if (cut.units == 0) return;
  const AttentionKernels& kernels = AttentionKernelsFor(isa);
  const int64_t tasks = cut.units < MaxTasks(parallel) ? cut.units : MaxTasks(parallel);
  const auto task_floats = static_cast<int64_t>(cut.TaskFloats().value());
  auto* memory = static_cast<float*>(workspace);
  float* states = memory + tasks * task_floats;
  UnitsLeft left(cut.units, tasks);
  ParallelFor(parallel, tasks, [&](int64_t task) {
    Unit unit(a, cut, kernels, memory + task * task_floats);
    for (int64_t index; left.Take(task, &index);) unit.Run(index, states);
  });
  if (cut.parts == 1) return;
  Unit unit(a, cut, kernels, memory);
  for (int64_t index = 0; index < cut.units; index += cut.parts) unit.Join(index, states);
}

}  // namespace edgecomp
