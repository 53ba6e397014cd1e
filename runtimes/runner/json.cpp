#include "runner/json.h"

#include <cmath>
#include <cstdio>

namespace edgecomp::runner {
namespace {

// Bytes of the UTF-8 sequence at `text`, by its first byte and its continuation bytes; 0 where it is none.
size_t Utf8Length(const char* text) {
  const auto lead = static_cast<unsigned char>(*text);
  const size_t length = lead < 0x80                   ? 1
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xf0 && lead < 0xf5 ? 4
                                                      : 0;
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

}  // namespace

void Json::Separate() {
  if (!first_) text_ += ',';
  first_ = false;
}

void Json::Open(char bracket) {
  Separate();
  text_ += bracket;
  first_ = true;
}

void Json::Close(char bracket) {
  text_ += bracket;
  first_ = false;
}

void Json::Key(const std::string& name) {
  Value(name);
  text_ += ':';
  first_ = true;
}

void Json::Value(const std::string& value) {
  Separate();
  text_ += '"';
  for (const char* at = value.c_str(); *at != '\0';) {
    const size_t length = Utf8Length(at);
    if (length == 0) {
      text_ += "\\ufffd";
    } else if (*at == '"' || *at == '\\') {
      (text_ += '\\') += *at;
    } else if (static_cast<unsigned char>(*at) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", static_cast<unsigned>(*at));
      text_ += escape;
    } else {
      text_.append(at, length);
    }
    at += length == 0 ? 1 : length;
  }
  text_ += '"';
}

void Json::Value(int64_t value) {
  Separate();
  text_ += std::to_string(value);
}

void Json::Value(double value) {
  if (!std::isfinite(value)) return Null();
  Separate();
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%.9g", value);
  text_ += digits;
}

void Json::Value(bool value) {
  Separate();
  text_ += value ? "true" : "false";
}

void Json::Null() {
  Separate();
  text_ += "null";
}

}  // namespace edgecomp::runner
