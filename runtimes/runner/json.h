// Writes JSON, and no more: requests come in a simpler form (request.h), so that nothing here parses it.
#ifndef EDGECOMP_RUNNER_JSON_H_
#define EDGECOMP_RUNNER_JSON_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace edgecomp::runner {

class Json {
 public:
  void BeginObject() { Open('{'); }
  void EndObject() { Close('}'); }
  void BeginArray() { Open('['); }
  void EndArray() { Close(']'); }
  void Key(const std::string& name);

  void Value(const std::string& value);  // bytes that are no UTF-8 become U+FFFD
  void Value(const char* value) { Value(std::string(value)); }
  void Value(int64_t value);
  void Value(int value) { Value(static_cast<int64_t>(value)); }
  void Value(double value);
  void Value(bool value);
  void Null();

  template <class T>
  void Value(const std::optional<T>& value) {
    value ? Value(*value) : Null();
  }
  template <class T>
  void Value(const std::vector<T>& values) {
    BeginArray();
    for (const T& value : values) Value(value);
    EndArray();
  }
  // An object with the pairs' first as keys, in the order given.
  template <class T>
  void Value(const std::vector<std::pair<std::string, T>>& members) {
    BeginObject();
    for (const auto& [name, value] : members) Member(name, value);
    EndObject();
  }
  template <class T>
  void Member(const std::string& name, const T& value) {
    Key(name);
    Value(value);
  }

  const std::string& text() const { return text_; }

 private:
  void Open(char bracket);
  void Close(char bracket);
  void Separate();  // the comma that a value or key needs before it

  std::string text_;
  bool first_ = true;  // nothing yet in the innermost object or array, or behind a key
};

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_JSON_H_
