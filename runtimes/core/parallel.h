// Loops over the host runtime's threads.
#ifndef EDGECOMP_CORE_PARALLEL_H_
#define EDGECOMP_CORE_PARALLEL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/checked_math.h"
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

// Calls body(task) for every task in [0, count); runtimes are never asked for no tasks.
template <class Body>
void ParallelFor(const ec_parallel* parallel, int64_t count, const Body& body) {
  if (count <= 1 || parallel == nullptr || parallel->run == nullptr) {
    for (int64_t task = 0; task < count; ++task) body(task);
    return;
  }
  const auto call = [](void* arg, size_t task) { (*static_cast<const Body*>(arg))(static_cast<int64_t>(task)); };
  parallel->run(parallel->context, call, static_cast<size_t>(count), const_cast<Body*>(&body));
}

// Work that is done a unit at a time, by whichever task comes for the next one. A runtime that does not tell its number of threads
// is given more tasks than it has; a task that comes late finds nothing left, and those that came in time keep their memory and
// what they have prepared from unit to unit. The first half of the tasks starts at the first unit and the second at the last, since
// threads that write to neighbouring cache lines slow each other down.
class UnitsLeft {
 public:
  UnitsLeft(int64_t units, int64_t tasks) : units_(units), tasks_(tasks) {}
  bool Take(int64_t task, int64_t* unit) {
    if (taken_.fetch_add(1, std::memory_order_relaxed) >= units_) return false;
    const bool from_first = task < CeilDiv(tasks_, 2);
    *unit = from_first ? from_first_.fetch_add(1, std::memory_order_relaxed)
                       : units_ - 1 - from_last_.fetch_add(1, std::memory_order_relaxed);
    return true;
  }

 private:
  const int64_t units_, tasks_;
  std::atomic<int64_t> taken_{0}, from_first_{0}, from_last_{0};
};

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
