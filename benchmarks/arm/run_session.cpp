// Runs an ONNX model of one input x [1, K] and one output y on one thread, as often as asked:
//
//   run_session LIBONNXRUNTIME MODEL K ITERATIONS [CUSTOM_OP_LIBRARY]
//
// x[k] is k % 17 / 10 - 0.8 in float32. Writes the first 16 values of y, for the caller to check. The C ABI is declared by hand:
// the wheel that the runtime comes in has no headers, and functions keep their place in the table (see
// runtimes/adapters/onnxruntime/ort_abi.h).
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

struct ApiBase {
  void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

void* const* api;

template <class Result, class... Arguments>
Result CallSlot(int slot, Arguments... arguments) {
  return reinterpret_cast<Result (*)(Arguments...)>(api[slot])(arguments...);
}

// Calls a function that returns an OrtStatus*, and ends the program where that is one.
template <class... Arguments>
void Call(int slot, Arguments... arguments) {
  void* status = CallSlot<void*>(slot, arguments...);
  if (status == nullptr) return;
  constexpr int kGetErrorMessage = 2;
  std::fprintf(stderr, "run_session: %s\n", CallSlot<const char*>(kGetErrorMessage, static_cast<const void*>(status)));
  std::exit(1);
}

enum Slot {
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kSetIntraOpNumThreads = 24,
  kSetInterOpNumThreads = 25,
  kRegisterCustomOpsLibrary = 29,
  kCreateTensorWithDataAsOrtValue = 49,
  kGetTensorMutableData = 51,
  kCreateCpuMemoryInfo = 69,
  kReleaseValue = 96,
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: run_session LIBONNXRUNTIME MODEL K ITERATIONS [CUSTOM_OP_LIBRARY]\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) {
    std::fprintf(stderr, "run_session: %s\n", dlerror());
    return 1;
  }
  const auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
  constexpr uint32_t kApiVersion = 18;
  api = get_base()->GetApi(kApiVersion);

  void *env = nullptr, *options = nullptr, *session = nullptr, *memory = nullptr, *x = nullptr;
  constexpr int kWarnings = 2, kArena = 1, kDefaultMemory = 0, kFloat = 1;
  Call(kCreateEnv, kWarnings, "run_session", &env);
  Call(kCreateSessionOptions, &options);
  Call(kSetIntraOpNumThreads, options, 1);
  Call(kSetInterOpNumThreads, options, 1);
  void* custom_ops = nullptr;
  if (argc > 5) Call(kRegisterCustomOpsLibrary, options, static_cast<const char*>(argv[5]), &custom_ops);
  Call(kCreateSession, env, static_cast<const char*>(argv[2]), options, &session);

  const int64_t shape[2] = {1, std::atoll(argv[3])};
  std::vector<float> values(static_cast<size_t>(shape[1]));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) * 0.1f - 0.8f;
  Call(kCreateCpuMemoryInfo, kArena, kDefaultMemory, &memory);
  Call(kCreateTensorWithDataAsOrtValue, memory, static_cast<void*>(values.data()), values.size() * sizeof(float), shape, size_t{2},
       kFloat, &x);
  const char* input = "x";
  const char* output = "y";
  float first[16] = {};
  for (int64_t i = std::atoll(argv[4]); i > 0; --i) {
    void* y = nullptr;
    Call(kRun, session, static_cast<void*>(nullptr), &input, &x, size_t{1}, &output, size_t{1}, &y);
    float* data = nullptr;
    Call(kGetTensorMutableData, y, &data);
    std::memcpy(first, data, sizeof(first));
    CallSlot<void>(kReleaseValue, y);
  }
  for (const float value : first) std::printf("%.9g\n", static_cast<double>(value));
  std::fflush(stdout);
  std::_Exit(0);  // the runtime's own clean-up is no part of the count
}
