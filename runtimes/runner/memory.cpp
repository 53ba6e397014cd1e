#include "runner/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runner/fail.h"

namespace edgecomp::runner {
namespace {

// The number of a line "Name:   123 kB" in bytes; -1 for another line.
int64_t Bytes(const char* line, const char* name) {
  const size_t length = std::strlen(name);
  if (std::strncmp(line, name, length) != 0 || line[length] != ':') return -1;
  return std::strtoll(line + length + 1, nullptr, 10) * 1024;
}

// Calls `visit` with each line: by a buffer on the stack, so that reading adds nothing to what is read.
template <class Visit>
void VisitLines(const char* path, Visit visit) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) {
    Fail(ErrorClass::kDevice,
         std::string("memory is read from ") + path + ", which this system must offer: " + std::strerror(errno));
  }
  char line[8192];
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    line[std::strcspn(line, "\n")] = '\0';
    visit(line);
  }
  std::fclose(file);
}

// The path of a mapping's head, "7f..-7f.. r--p offset device inode   path"; null for any other line.
const char* MappedPath(const char* line) {
  const size_t word = std::strcspn(line, " ");
  if (std::memchr(line, '-', word) == nullptr) return nullptr;
  for (int field = 0; field < 5; ++field) {
    line += std::strcspn(line, " ");
    line += std::strspn(line, " ");
  }
  return line;
}

// Paths as the system has them of mappings: without links, as those of a cache that keeps downloads under their digests.
std::vector<std::string> WithoutLinks(std::vector<std::string> paths) {
  for (std::string& path : paths) {
    if (char* real = realpath(path.c_str(), nullptr); real != nullptr) {
      path = real;
      std::free(real);
    }
  }
  return paths;
}

int64_t FileBackedBytes(const std::vector<std::string>& artifact_files) {
  const std::vector<std::string> files = WithoutLinks(artifact_files);
  int64_t total = 0;
  bool counted = false;
  VisitLines("/proc/self/smaps", [&](const char* line) {
    if (const char* path = MappedPath(line); path != nullptr) {
      counted = std::find(files.begin(), files.end(), path) != files.end();
    } else if (counted) {
      total += std::max<int64_t>(Bytes(line, "Rss"), 0);
      total -= std::max<int64_t>(Bytes(line, "Anonymous"), 0);
    }
  });
  return total;
}

// An open file, and its size; fails with ModelError where it cannot be opened.
class File {
 public:
  explicit File(const std::string& path) : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat status = {};
    if (descriptor < 0 || fstat(descriptor, &status) != 0) {
      Fail(ErrorClass::kModel, "the artifact's file " + path + " cannot be opened: " + std::strerror(errno));
    }
    bytes = static_cast<size_t>(status.st_size);
  }
  ~File() { close(descriptor); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int descriptor;
  size_t bytes;
};

}  // namespace

void Memory::Write(Json* json) const {
  json->BeginObject();
  json->Member("anonymous_bytes", anonymous_bytes);
  json->Member("file_backed_bytes", file_backed_bytes);
  json->Member("artifact_file_backed_bytes", artifact_file_backed_bytes);
  json->Member("resident_bytes", resident_bytes);
  json->Member("pss_bytes", pss_bytes);
  json->Member("peak_resident_bytes", peak_resident_bytes);
  json->EndObject();
}

Memory ReadMemory(const std::vector<std::string>& artifact_files) {
  Memory memory;
  VisitLines("/proc/self/smaps_rollup", [&](const char* line) {
    memory.resident_bytes = std::max(memory.resident_bytes, Bytes(line, "Rss"));
    memory.pss_bytes = std::max(memory.pss_bytes, Bytes(line, "Pss"));
    memory.anonymous_bytes = std::max(memory.anonymous_bytes, Bytes(line, "Anonymous"));
  });
  VisitLines("/proc/self/status",
             [&](const char* line) { memory.peak_resident_bytes = std::max(memory.peak_resident_bytes, Bytes(line, "VmHWM")); });
  memory.file_backed_bytes = memory.resident_bytes - memory.anonymous_bytes;
  memory.artifact_file_backed_bytes = FileBackedBytes(artifact_files);
  return memory;
}

bool ResetPeak() {
  std::FILE* file = std::fopen("/proc/self/clear_refs", "w");
  if (file == nullptr) return false;
  const bool written = std::fputs("5", file) >= 0;
  return std::fclose(file) == 0 && written;
}

bool DropPageCache(const std::vector<std::string>& files) {
  bool dropped = true;
  for (const std::string& path : files) {
    const File file(path);
    // Pages that are not yet written cannot be dropped. A file system that is only readable has none.
    dropped = (fsync(file.descriptor) == 0 || errno == EROFS || errno == EINVAL) && dropped;
    dropped = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED) == 0 && dropped;
  }
  return dropped;
}

int64_t CachedBytes(const std::vector<std::string>& files) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  int64_t total = 0;
  for (const std::string& path : files) {
    const File file(path);
    if (file.bytes == 0) continue;
    void* view = mmap(nullptr, file.bytes, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
    if (view == MAP_FAILED) Fail(ErrorClass::kDevice, path + " cannot be mapped: " + std::strerror(errno));
    std::vector<unsigned char> resident((file.bytes + page - 1) / page);
    if (mincore(view, file.bytes, resident.data()) == 0) {
      for (const unsigned char flags : resident) total += (flags & 1) != 0 ? static_cast<int64_t>(page) : 0;
    }
    munmap(view, file.bytes);
  }
  return total;
}

}  // namespace edgecomp::runner
