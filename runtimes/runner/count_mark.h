// A mark in the stream of instructions: emulated, the instructions between two marks are counted (runtimes/qemu_plugin).
#ifndef EDGECOMP_RUNNER_COUNT_MARK_H_
#define EDGECOMP_RUNNER_COUNT_MARK_H_

namespace edgecomp::runner {

inline void MarkCount() {
#if defined(__aarch64__)
  __asm__ volatile("mov x27, x27" ::: "memory");  // does nothing, and no compiler writes it
#endif
}

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_COUNT_MARK_H_
