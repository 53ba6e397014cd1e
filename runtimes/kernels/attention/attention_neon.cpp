#include "kernels/attention/attention_simd.h"

namespace edgecomp {
namespace {

struct Neon;

}  // namespace

extern const AttentionKernels kAttentionNeon;
const AttentionKernels kAttentionNeon = MakeAttentionKernels<Neon>();

}  // namespace edgecomp
