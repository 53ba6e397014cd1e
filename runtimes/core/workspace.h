// How a caller's workspace is cut into parts.
#ifndef EDGECOMP_CORE_WORKSPACE_H_
#define EDGECOMP_CORE_WORKSPACE_H_

#include <cstddef>
#include <cstdint>

#include "core/checked_math.h"

namespace edgecomp {

constexpr int64_t kWorkspaceAlignment = 64;  // of every part: a cache line

// `bytes` rounded up to whole lines; they fit.
inline int64_t WholeLines(CheckedSize bytes) {
  return CeilDiv(static_cast<int64_t>(bytes.value()), kWorkspaceAlignment) * kWorkspaceAlignment;
}

// Where the first part begins, in a workspace that the caller may have laid anywhere.
inline uint8_t* FirstLine(void* workspace) {
  constexpr auto kLine = static_cast<uintptr_t>(kWorkspaceAlignment);
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(workspace) + kLine - 1) / kLine * kLine);
}

// Lays parts out one after the other.
class WorkspaceLayout {
 public:
  // Returns where the part begins, behind the first line.
  size_t Add(CheckedSize bytes) {
    const size_t offset = total_.value();
    fits_ = fits_ && bytes.fits();
    total_ += bytes.fits() ? WholeLines(bytes) : 0;
    fits_ = fits_ && total_.fits();
    return offset;
  }
  bool fits() const { return fits_ && (total_ + kWorkspaceAlignment).fits(); }
  // Of a workspace for them, wherever it lies.
  size_t total() const { return (total_ + kWorkspaceAlignment).value(); }

 private:
  CheckedSize total_ = 0;
  bool fits_ = true;
};

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_WORKSPACE_H_
