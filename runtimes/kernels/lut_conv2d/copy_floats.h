// Copies of rows of images, which are mostly short: vectors of a known size, of which the last two overlap, cost less than a call
// or a loop.
#ifndef EDGECOMP_KERNELS_LUT_CONV2D_COPY_FLOATS_H_
#define EDGECOMP_KERNELS_LUT_CONV2D_COPY_FLOATS_H_

#include <cstdint>
#include <cstring>

namespace edgecomp {

template <int64_t kCount>
inline void CopyOverlapping(const float* from, int64_t count, float* to) {
  const auto copy = [](const float* some, float* there) {
    float values[kCount];
    std::memcpy(values, some, sizeof(values));
    std::memcpy(there, values, sizeof(values));
  };
  for (int64_t i = 0; i + kCount < count; i += kCount) copy(from + i, to + i);
  copy(from + count - kCount, to + count - kCount);
}

inline void CopyFloats(const float* from, int64_t count, float* to) {
  if (count >= 16) return CopyOverlapping<16>(from, count, to);
  if (count >= 8) return CopyOverlapping<8>(from, count, to);
  if (count >= 4) return CopyOverlapping<4>(from, count, to);
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

}  // namespace edgecomp

#endif  // EDGECOMP_KERNELS_LUT_CONV2D_COPY_FLOATS_H_
