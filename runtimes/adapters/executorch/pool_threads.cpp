#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include "adapters/executorch/call_host.h"

namespace edgecomp::et {
namespace {

void Run(void*, void (*fn)(void* arg, size_t i), size_t count, void* arg) {
  const auto tasks = [fn, arg](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) fn(arg, static_cast<size_t>(i));
  };
  if (executorch::extension::parallel_for(0, static_cast<int64_t>(count), 1, tasks)) return;
  tasks(0, static_cast<int64_t>(count));  // tasks write the same results if some of them ran already
}

}  // namespace

ec_parallel PoolThreads() {
  if (executorch::extension::threadpool::NoThreadPoolGuard::is_enabled()) return {nullptr, Run, 1};
  return {nullptr, Run, static_cast<int32_t>(executorch::extension::get_thread_count())};
}

}  // namespace edgecomp::et
