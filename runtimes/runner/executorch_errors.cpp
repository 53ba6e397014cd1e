#include "runner/executorch_errors.h"

#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdio>
#include <mutex>

namespace edgecomp::runner {
namespace {

std::mutex mutex;
std::string first_line;

void Keep(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t, const char* message, size_t length) {
  if (level != et_pal_log_level_t::kError && level != et_pal_log_level_t::kFatal) return;
  // The process ends next, and no answer will tell why.
  if (level == et_pal_log_level_t::kFatal) std::fprintf(stderr, "%.*s\n", static_cast<int>(length), message);
  const std::lock_guard<std::mutex> lock(mutex);
  if (first_line.empty()) first_line.assign(message, length);
}

}  // namespace

void KeepErrors() {
  executorch::runtime::register_pal(executorch::runtime::PalImpl::create(Keep, __FILE__));
  executorch::runtime::runtime_init();
}

void ForgetErrors() {
  const std::lock_guard<std::mutex> lock(mutex);
  first_line.clear();
}

std::string FirstError(executorch::runtime::Error error) {
  const std::lock_guard<std::mutex> lock(mutex);
  return first_line.empty() ? "error " + std::to_string(static_cast<int>(error)) : first_line;
}

}  // namespace edgecomp::runner
