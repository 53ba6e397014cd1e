// Attention with a cache of keys and values: an operator for each type of the cache.
#include <cmath>

#include "core/checked_math.h"
#include "kernels/attention/attention.h"
#include "ops/call_parts.h"
#include "ops/op_table.h"

namespace edgecomp {
namespace {

// Inputs and attributes have the same places whatever the type of the cache.
namespace append = kv_append_float32;
namespace attention_op = kv_attention_float32;

bool CheckRank(const OpCall& call, size_t input, size_t rank, Message* message) {
  const Tensor& got = call.input(input);
  if (got.shape.rank == rank) return true;
  return message->Refuse(EC_ERR_TENSOR, "%s must be %s, got %s", call.schema->inputs[input].name, call.schema->inputs[input].shape,
                         ShapeText(got.shape).text);
}

// Whether the tables of `cos` (and behind it sin) turn heads of `size`, for positions below `positions`.
bool CheckRotary(const OpCall& call, size_t cos, int64_t size, int64_t positions, Message* message) {
  const Shape &first = call.input(cos).shape, &second = call.input(cos + 1).shape;
  if (first.rank != 2 || !(first == second) || first.dims[1] > size / 2) {
    return message->Refuse(EC_ERR_TENSOR,
                           "cos and sin must be [context, rotated/2], and a head of %lld be rotated at most, got %s and %s",
                           static_cast<long long>(size), ShapeText(first).text, ShapeText(second).text);
  }
  if (first.dims[1] == 0 || positions <= first.dims[0]) return true;
  return message->Refuse(EC_ERR_TENSOR, "cos must have an angle for each of %lld positions, got %s",
                         static_cast<long long>(positions), ShapeText(first).text);
}

Rotary RotaryOf(const OpCall& call, size_t cos) {
  return {call.input(cos).as<float>(), call.input(cos + 1).as<float>(), call.input(cos).shape.dims[1]};
}

// Whether each row's tokens begin at a place from which `sequence` lie in `room`; gives the largest end.
bool CheckPlaces(const OpCall& call, size_t before, int64_t batch, int64_t sequence, int64_t room, int64_t* end, Message* message) {
  const Tensor& places = call.input(before);
  if (!CheckShape(call, before, {{batch}, 1}, message)) return false;
  *end = 0;
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t first = places.as<int32_t>()[row];
    if (first < 0 || first > room - sequence) {
      return message->Refuse(EC_ERR_TENSOR,
                             "before must be places from 0 to %lld: %lld tokens are given, and the cache has %lld; got %lld",
                             static_cast<long long>(room - sequence), static_cast<long long>(sequence),
                             static_cast<long long>(room), static_cast<long long>(first));
    }
    *end = first + sequence > *end ? first + sequence : *end;
  }
  return true;
}

// Values of a head in rows of the cache that are `elements` long; 0 where none has such rows.
int64_t HeadSize(ec_type type, int64_t elements) {
  const int64_t size = elements - CacheType{type}.RowElements(0);
  return size >= 1 && size <= kLargestHead ? size : 0;
}

bool RefuseRows(const OpCall& call, size_t input, Message* message) {
  return message->Refuse(EC_ERR_TENSOR, "%s must be %s with heads of 1 to %lld values, got %s", call.schema->inputs[input].name,
                         call.schema->inputs[input].shape, static_cast<long long>(kLargestHead),
                         ShapeText(call.input(input).shape).text);
}

bool AppendShape(const OpCall& call, const Shape& past, Shape* output, Message* message) {
  if (call.inputs[append::kTotal] == nullptr) return false;  // a size that is told when it runs
  const Tensor& total = call.input(append::kTotal);
  if (!CheckRank(call, append::kPast, 4, message)) return false;
  if (total.shape.Elements() != 1) {
    return message->Refuse(EC_ERR_TENSOR, "total must be one number, got %s", ShapeText(total.shape).text);
  }
  const int64_t wanted = *total.as<int32_t>();
  *output = past;
  if (wanted > past.dims[2]) output->dims[2] = wanted;
  CheckedSize bytes(static_cast<int64_t>(ElementBytes(call.schema->output_type)));
  for (size_t i = 0; i < 4; ++i) bytes *= CheckedSize(output->dims[i]);
  return bytes.fits() || message->Refuse(EC_ERR_OVERFLOW, "%s", ec_status_message(EC_ERR_OVERFLOW));
}

bool PrepareAppend(const OpCall& call, const Factor&, const ec_parallel*, OpPlan* plan, Message* message) {
  const Shape &past = call.input(append::kPast).shape, &x = call.input(append::kX).shape;
  if (!CheckRank(call, append::kX, 3, message)) return false;
  const CacheType type = {call.schema->output_type};
  auto& a = plan->kernel.as<KvAppend>();
  const int64_t size = HeadSize(type.element, past.dims[3]), first = call.integer(append::kFirst);
  if (size == 0) return RefuseRows(call, append::kPast, message);
  CheckedSize wanted = CheckedSize(past.dims[1]) * CheckedSize(size);
  if (first >= 0) wanted += CheckedSize(first);
  if (x.dims[0] != past.dims[0] || first < 0 || !wanted.fits() || wanted.value() > static_cast<size_t>(x.dims[2])) {
    return message->Refuse(
        EC_ERR_TENSOR,
        "x must be [%lld, sequence, width], the width %lld heads of %lld from column first or more, got %s with first=%lld",
        static_cast<long long>(past.dims[0]), static_cast<long long>(past.dims[1]), static_cast<long long>(size), ShapeText(x).text,
        static_cast<long long>(first));
  }
  int64_t end = 0;
  if (!CheckPlaces(call, append::kBefore, past.dims[0], x.dims[1], plan->output.dims[2], &end, message) ||
      !CheckRotary(call, append::kCos, size, end, message)) {
    return false;
  }
  a = {type,
       past.dims[0],
       past.dims[1],
       size,
       past.dims[2],
       plan->output.dims[2],
       x.dims[1],
       x.dims[2],
       call.input(append::kPast).data,
       call.input(append::kX).as<float>() + first,
       call.input(append::kBefore).as<int32_t>(),
       RotaryOf(call, append::kCos),
       nullptr};
  return true;
}

bool Select(Isa* isa, ec_status* status) {
  *status = SelectedIsa(isa);
  return *status == EC_OK;
}

ec_status RunAppend(const OpCall&, const Factor&, const OpPlan& plan, const ec_parallel* parallel, void*, void* y) {
  Isa isa;
  ec_status status;
  if (!Select(&isa, &status)) return status;
  KvAppend a = plan.kernel.as<KvAppend>();
  a.present = y;
  if (plan.output.Elements() > 0) RunKvAppend(a, isa, parallel);
  return EC_OK;
}

bool AttentionShape(const OpCall& call, const Shape& x, Shape* output, Message* message) {
  const int64_t heads = call.integer(attention_op::kHeads), size = call.integer(attention_op::kHeadSize);
  if (heads < 1 || size < 1 || size > kLargestHead || heads > INT32_MAX / kLargestHead) {
    return message->Refuse(EC_ERR_ATTRIBUTE, "heads must be 1 or more, and head_size 1 to %lld, got %lld and %lld",
                           static_cast<long long>(kLargestHead), static_cast<long long>(heads), static_cast<long long>(size));
  }
  if (x.rank != 3 || (x.dims[2] >= 0 && x.dims[2] < heads * size)) {
    return message->Refuse(EC_ERR_TENSOR, "x must be float32 [batch, sequence, %lld or more], got %s",
                           static_cast<long long>(heads * size), ShapeText(x).text);
  }
  *output = x;
  output->dims[2] = heads * size;
  return true;
}

bool PrepareAttention(const OpCall& call, const Factor&, const ec_parallel* parallel, OpPlan* plan, Message* message) {
  const Shape &x = call.input(attention_op::kX).shape, &keys = call.input(attention_op::kKeys).shape;
  const CacheType type = {call.input(attention_op::kKeys).type};
  const int64_t heads = call.integer(attention_op::kHeads), size = call.integer(attention_op::kHeadSize);
  if (!CheckRank(call, attention_op::kKeys, 4, message)) return false;
  if (HeadSize(type.element, keys.dims[3]) != size) return RefuseRows(call, attention_op::kKeys, message);
  if (keys.dims[0] != x.dims[0] || keys.dims[1] < 1 || heads % keys.dims[1] != 0) {
    return message->Refuse(EC_ERR_TENSOR, "keys must be of %lld rows, and of as many heads as divide the %lld of queries, got %s",
                           static_cast<long long>(x.dims[0]), static_cast<long long>(heads), ShapeText(keys).text);
  }
  if (!CheckShape(call, attention_op::kValues, keys, message)) return false;
  const float scale = call.real(attention_op::kScale), cap = call.real(attention_op::kCap);
  if (!std::isfinite(scale) || !std::isfinite(cap)) {
    return message->Refuse(EC_ERR_ATTRIBUTE, "scale and cap must be finite, got %g and %g", static_cast<double>(scale),
                           static_cast<double>(cap));
  }
  int64_t end = 0;
  if (!CheckPlaces(call, attention_op::kBefore, x.dims[0], x.dims[1], keys.dims[2], &end, message) ||
      !CheckRotary(call, attention_op::kCos, size, end, message)) {
    return false;
  }
  const int64_t window = call.integer(attention_op::kWindow);
  auto& a = plan->kernel.as<KvAttention>();
  a = {type,
       x.dims[0],
       heads,
       keys.dims[1],
       size,
       keys.dims[2],
       end,
       x.dims[1],
       x.dims[2],
       call.input(attention_op::kX).as<float>(),
       call.input(attention_op::kKeys).data,
       call.input(attention_op::kValues).data,
       call.input(attention_op::kBefore).as<int32_t>(),
       RotaryOf(call, attention_op::kCos),
       window > 0 ? window : 0,
       scale,
       cap,
       nullptr};
  return Planned(KvAttentionWorkspace(a, parallel, &plan->workspace_bytes), message);
}

ec_status RunAttention(const OpCall&, const Factor&, const OpPlan& plan, const ec_parallel* parallel, void* workspace, void* y) {
  Isa isa;
  ec_status status;
  if (!Select(&isa, &status)) return status;
  KvAttention a = plan.kernel.as<KvAttention>();
  a.y = static_cast<float*>(y);
  if (plan.output.Elements() > 0) RunKvAttention(a, isa, parallel, workspace);
  return EC_OK;
}

constexpr OpKernel kKernels[] = {
    {"kv_append_float32", AttentionIsaFor},    {"kv_append_float16", AttentionIsaFor},    {"kv_append_int8", AttentionIsaFor},
    {"kv_attention_float32", AttentionIsaFor}, {"kv_attention_float16", AttentionIsaFor}, {"kv_attention_int8", AttentionIsaFor},
};

constexpr Op Append(const OpSchema& schema, size_t kernel) {
  return {&schema, nullptr, AppendShape, PrepareAppend, RunAppend, &kKernels[kernel], 1};
}
constexpr Op Attention(const OpSchema& schema, size_t kernel) {
  return {&schema, nullptr, AttentionShape, PrepareAttention, RunAttention, &kKernels[kernel], 1};
}

}  // namespace

const Op kKVAppendFloat32 = Append(kv_append_float32::kSchema, 0);
const Op kKVAppendFloat16 = Append(kv_append_float16::kSchema, 1);
const Op kKVAppendInt8 = Append(kv_append_int8::kSchema, 2);
const Op kKVAttentionFloat32 = Attention(kv_attention_float32::kSchema, 3);
const Op kKVAttentionFloat16 = Attention(kv_attention_float16::kSchema, 4);
const Op kKVAttentionInt8 = Attention(kv_attention_int8::kSchema, 5);

}  // namespace edgecomp
