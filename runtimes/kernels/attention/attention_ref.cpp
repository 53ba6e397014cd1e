#include "kernels/attention/attention_simd.h"

namespace edgecomp {
namespace {

struct Ref;

}  // namespace

extern const AttentionKernels kAttentionRef;
const AttentionKernels kAttentionRef = MakeAttentionKernels<Ref>();

}  // namespace edgecomp
