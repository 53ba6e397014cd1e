#include "kernels/attention/attention_simd.h"

namespace edgecomp {
namespace {

struct Avx2;

}  // namespace

extern const AttentionKernels kAttentionAvx2;
const AttentionKernels kAttentionAvx2 = MakeAttentionKernels<Avx2>();

}  // namespace edgecomp
