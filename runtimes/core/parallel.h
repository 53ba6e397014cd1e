// Loops over the host runtime's threads.
#ifndef EDGECOMP_CORE_PARALLEL_H_
#define EDGECOMP_CORE_PARALLEL_H_

#include <cstddef>
#include <cstdint>

#include "edgecomp/edgecomp.h"

namespace edgecomp {

// More tasks than threads, so that a slow thread does not hold up the rest; a bound, since each task may own a part of the
// workspace.
inline int64_t MaxTasks(const ec_parallel* parallel) {
  constexpr int64_t kTasksPerThread = 4;
  constexpr int64_t kTasksOfUnknownThreads = 32;
  constexpr int64_t kMostTasks = 256;
  if (parallel == nullptr || parallel->run == nullptr || parallel->threads == 1) return 1;
  const int64_t tasks = parallel->threads > 0 ? kTasksPerThread * parallel->threads : kTasksOfUnknownThreads;
  return tasks < kMostTasks ? tasks : kMostTasks;
}

// Calls body(task) for every task in [0, count).
template <class Body>
void ParallelFor(const ec_parallel* parallel, int64_t count, const Body& body) {
  if (count == 1 || parallel == nullptr || parallel->run == nullptr) {
    for (int64_t task = 0; task < count; ++task) body(task);
    return;
  }
  const auto call = [](void* arg, size_t task) { (*static_cast<const Body*>(arg))(static_cast<int64_t>(task)); };
  parallel->run(parallel->context, call, static_cast<size_t>(count), const_cast<Body*>(&body));
}

// Part `part` of `parts` nearly equal parts of [0, count).
struct Range {
  int64_t first;
  int64_t last;
};
inline Range PartOf(int64_t count, int64_t parts, int64_t part) {
  const int64_t size = count / parts;
  const int64_t longer = count % parts;  // so many parts have one more
  const int64_t first = part * size + (part < longer ? part : longer);
  return {first, first + size + (part < longer ? 1 : 0)};
}

}  // namespace edgecomp

#endif  // EDGECOMP_CORE_PARALLEL_H_
