// A test harness of one header: CHECK counts failures and prints where they are, TEST registers a function.
#ifndef EDGECOMP_TESTS_CPP_CHECK_H_
#define EDGECOMP_TESTS_CPP_CHECK_H_

#include <cstdarg>
#include <cstdio>
#include <vector>

namespace edgecomp::test {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& Tests() {
  static std::vector<Test> tests;
  return tests;
}

inline int failures = 0;

__attribute__((format(printf, 4, 5))) inline bool Check(bool ok, const char* file, int line, const char* format, ...) {
  if (ok) return true;
  ++failures;
  std::fprintf(stderr, "%s:%d: ", file, line);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  return false;
}

inline int RunAll() {
  for (const Test& test : Tests()) {
    const int before = failures;
    test.run();
    std::printf("%-4s %s\n", failures == before ? "ok" : "FAIL", test.name);
  }
  return failures == 0 ? 0 : 1;
}

struct Registration {
  Registration(const char* name, void (*run)()) { Tests().push_back({name, run}); }
};

}  // namespace edgecomp::test

#define CHECK(condition) edgecomp::test::Check((condition), __FILE__, __LINE__, "%s", #condition)
#define CHECK_MESSAGE(condition, ...) edgecomp::test::Check((condition), __FILE__, __LINE__, __VA_ARGS__)
#define TEST(name)                                                                  \
  static void Test##name();                                                         \
  static const edgecomp::test::Registration kRegistration##name(#name, Test##name); \
  static void Test##name()

#endif  // EDGECOMP_TESTS_CPP_CHECK_H_
