#include "kernels/attention/attention_simd.h"

namespace edgecomp {
namespace {

struct Avx512Vnni;

}  // namespace

extern const AttentionKernels kAttentionAvx512Vnni;
const AttentionKernels kAttentionAvx512Vnni = MakeAttentionKernels<Avx512Vnni>();

}  // namespace edgecomp
