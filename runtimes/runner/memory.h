// Memory of this process, from Linux's /proc: what only it holds, and what the system can drop and read again.
#ifndef EDGECOMP_RUNNER_MEMORY_H_
#define EDGECOMP_RUNNER_MEMORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runner/json.h"

namespace edgecomp::runner {

// Bytes at one moment. Anonymous pages (heap, stacks, copies of mapped pages) can leave memory only by swapping; file-backed ones
// are resident pages of mapped files, a part of them the artifact's. PSS counts shared pages in proportion. The peak is the
// high-water mark of resident bytes since the last reset.
struct Memory {
  int64_t anonymous_bytes = 0;
  int64_t file_backed_bytes = 0;
  int64_t artifact_file_backed_bytes = 0;
  int64_t resident_bytes = 0;
  int64_t pss_bytes = 0;
  int64_t peak_resident_bytes = 0;

  void Write(Json* json) const;
};

// Fails with DeviceError where the system has no /proc/self/smaps_rollup (Linux 4.14 or later has).
Memory ReadMemory(const std::vector<std::string>& artifact_files);

// Starts the high-water mark again from now; false where the system does not allow it.
bool ResetPeak();

// Asks the system to forget the files' cached pages. What is left: CachedBytes.
bool DropPageCache(const std::vector<std::string>& files);

// Bytes of the files that are in the page cache, in whole pages.
int64_t CachedBytes(const std::vector<std::string>& files);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_MEMORY_H_
