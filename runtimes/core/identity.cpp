// What an artifact says of itself: one line of text, wherever in the file a runtime's format keeps it.
#include <cstring>

#include "edgecomp/edgecomp.h"

namespace {

constexpr char kStart[] = "edgecomp-identity/1 id=";
constexpr size_t kDigits = 64;

// A cursor over the line; every step says whether the text is what it must be.
struct Text {
  const char* next;
  const char* end;

  bool Literal(const char* expected) {
    const size_t length = std::strlen(expected);
    if (static_cast<size_t>(end - next) < length || std::memcmp(next, expected, length) != 0) return false;
    next += length;
    return true;
  }

  // A SHA-256 in hexadecimal, or "-" for none, which is written as "".
  bool Digest(char* out, bool optional) {
    if (optional && next < end && *next == '-') {
      ++next;
      out[0] = '\0';
      return true;
    }
    if (static_cast<size_t>(end - next) < kDigits) return false;
    for (size_t i = 0; i < kDigits; ++i) {
      if ((next[i] < '0' || next[i] > '9') && (next[i] < 'a' || next[i] > 'f')) return false;
    }
    std::memcpy(out, next, kDigits);
    out[kDigits] = '\0';
    next += kDigits;
    return true;
  }

  bool Version(char* out, size_t room) {
    size_t length = 0;
    while (next + length < end && length + 1 < room &&
           ((next[length] >= '0' && next[length] <= '9') || (next[length] >= 'a' && next[length] <= 'z') || next[length] == '.')) {
      ++length;
    }
    std::memcpy(out, next, length);
    out[length] = '\0';
    next += length;
    return length > 0 && Literal(";");
  }
};

bool Read(Text text, ec_identity* out) {
  return text.Digest(out->id, false) && text.Literal(" original=") && text.Digest(out->original, false) &&
         text.Literal(" recipe=") && text.Digest(out->recipe, false) && text.Literal(" calibration=") &&
         text.Digest(out->calibration, true) && text.Literal(" edgecomp=") && text.Version(out->edgecomp, sizeof(out->edgecomp));
}

}  // namespace

ec_status ec_identity_find(const void* bytes, size_t count, ec_identity* out) {
  if (out == nullptr || (bytes == nullptr && count > 0)) return EC_ERR_NULL_POINTER;
  if (out->size != sizeof(ec_identity)) return EC_ERR_STRUCT_SIZE;
  const char* const end = static_cast<const char*>(bytes) + count;
  const size_t length = sizeof(kStart) - 1;
  for (const char* at = static_cast<const char*>(bytes); static_cast<size_t>(end - at) >= length; ++at) {
    at = static_cast<const char*>(std::memchr(at, kStart[0], static_cast<size_t>(end - at) - length + 1));
    if (at == nullptr) break;
    ec_identity found = {};
    found.size = sizeof(ec_identity);
    if (std::memcmp(at, kStart, length) == 0 && Read({at + length, end}, &found)) {
      *out = found;
      return EC_OK;
    }
  }
  return EC_ERR_IDENTITY;
}
