// The part of ONNX Runtime's C ABI that a custom-op library and the runner need, declared by hand.
//
// The official headers are in no Python wheel and no Linux distribution, and the ABI only ever grows: a function keeps its place in
// the table, so asking for version 18 works in every runtime from 1.18 on. The order follows include/onnxruntime/core/session/
// onnxruntime_c_api.h of microsoft/onnxruntime; tests/test_onnxruntime_ops.py and tests/bench/test_runner.py call every entry.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_ORT_ABI_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_ORT_ABI_H_

#include <cstddef>
#include <cstdint>

extern "C" {

struct OrtStatus;
struct OrtValue;
struct OrtAllocator;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtOpAttr;
struct OrtTensorTypeAndShapeInfo;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtEnv;
struct OrtSession;
struct OrtRunOptions;
struct OrtMemoryInfo;
struct OrtTypeInfo;

struct OrtApiBase {
  const void* const* (*GetApi)(uint32_t version);  // null where the runtime is older than the version
  const char* (*GetVersionString)();
};

struct OrtCustomOp {
  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp*, const void* const*, const OrtKernelInfo*);
  const char* (*GetName)(const OrtCustomOp*);
  const char* (*GetExecutionProviderType)(const OrtCustomOp*);
  int (*GetInputType)(const OrtCustomOp*, size_t);
  size_t (*GetInputTypeCount)(const OrtCustomOp*);
  int (*GetOutputType)(const OrtCustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const OrtCustomOp*);
  void (*KernelCompute)(void*, OrtKernelContext*);
  void (*KernelDestroy)(void*);
  int (*GetInputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetOutputCharacteristic)(const OrtCustomOp*, size_t);
  int (*GetInputMemoryType)(const OrtCustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const OrtCustomOp*);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp*);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp*);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp*);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp*, const void* const*, const OrtKernelInfo*, void**);
  OrtStatus* (*KernelComputeV2)(void*, OrtKernelContext*);
  OrtStatus* (*InferOutputShape)(const OrtCustomOp*, OrtShapeInferContext*);
  int (*GetStartVersion)(const OrtCustomOp*);
  int (*GetEndVersion)(const OrtCustomOp*);
  size_t (*GetMayInplace)(int**, int**);
  void (*ReleaseMayInplace)(int*, int*);
  size_t (*GetAliasMap)(int**, int**);
  void (*ReleaseAliasMap)(int*, int*);
};
static_assert(sizeof(void*) != 8 || sizeof(OrtCustomOp) == 208, "OrtCustomOp of version 18");

}  // extern "C"

namespace edgecomp::ort {

constexpr uint32_t kApiVersion = 18;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2, kRuntimeException = 6, kNotImplemented = 9 };
enum ElementType : int { kFloat = 1, kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt32 = 6, kInt64 = 7, kFloat16 = 10 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum AttributeType : int { kIntAttribute = 1, kIntsAttribute = 2 };
constexpr int kDefaultMemory = 0;  // OrtMemTypeDefault

// Function `slot` of the table.
template <int kSlot, class Result, class... Arguments>
struct Entry {
  static Result Call(const void* const* api, Arguments... arguments) {
    return reinterpret_cast<Result (*)(Arguments...)>(const_cast<void*>(api[kSlot]))(arguments...);
  }
};

using CreateStatus = Entry<0, OrtStatus*, int, const char*>;
using GetErrorMessage = Entry<2, const char*, const OrtStatus*>;
using CreateEnv = Entry<3, OrtStatus*, int, const char*, OrtEnv**>;
using CreateSession = Entry<7, OrtStatus*, const OrtEnv*, const char*, const OrtSessionOptions*, OrtSession**>;
using CreateSessionFromArray = Entry<8, OrtStatus*, const OrtEnv*, const void*, size_t, const OrtSessionOptions*, OrtSession**>;
using Run = Entry<9, OrtStatus*, OrtSession*, const OrtRunOptions*, const char* const*, const OrtValue* const*, size_t,
                  const char* const*, size_t, OrtValue**>;
using CreateSessionOptions = Entry<10, OrtStatus*, OrtSessionOptions**>;
using EnableProfiling = Entry<14, OrtStatus*, OrtSessionOptions*, const char*>;
using SetIntraOpNumThreads = Entry<24, OrtStatus*, OrtSessionOptions*, int>;
using SetInterOpNumThreads = Entry<25, OrtStatus*, OrtSessionOptions*, int>;
using CreateCustomOpDomain = Entry<26, OrtStatus*, const char*, OrtCustomOpDomain**>;
using CustomOpDomainAdd = Entry<27, OrtStatus*, OrtCustomOpDomain*, const OrtCustomOp*>;
using AddCustomOpDomain = Entry<28, OrtStatus*, OrtSessionOptions*, OrtCustomOpDomain*>;
using RegisterCustomOpsLibrary = Entry<29, OrtStatus*, OrtSessionOptions*, const char*, void**>;
using SessionGetInputCount = Entry<30, OrtStatus*, const OrtSession*, size_t*>;
using SessionGetOutputCount = Entry<31, OrtStatus*, const OrtSession*, size_t*>;
using SessionGetInputTypeInfo = Entry<33, OrtStatus*, const OrtSession*, size_t, OrtTypeInfo**>;
using SessionGetOutputTypeInfo = Entry<34, OrtStatus*, const OrtSession*, size_t, OrtTypeInfo**>;
using SessionGetInputName = Entry<36, OrtStatus*, const OrtSession*, size_t, OrtAllocator*, char**>;
using SessionGetOutputName = Entry<37, OrtStatus*, const OrtSession*, size_t, OrtAllocator*, char**>;
using CreateTensorWithData = Entry<49, OrtStatus*, const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**>;
using GetTensorMutableData = Entry<51, OrtStatus*, OrtValue*, void**>;
using CastTypeInfoToTensorInfo = Entry<55, OrtStatus*, const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**>;
using CreateTensorTypeAndShapeInfo = Entry<57, OrtStatus*, OrtTensorTypeAndShapeInfo**>;
using SetTensorElementType = Entry<58, OrtStatus*, OrtTensorTypeAndShapeInfo*, int>;
using SetDimensions = Entry<59, OrtStatus*, OrtTensorTypeAndShapeInfo*, const int64_t*, size_t>;
using GetTensorElementType = Entry<60, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int*>;
using GetDimensionsCount = Entry<61, OrtStatus*, const OrtTensorTypeAndShapeInfo*, size_t*>;
using GetDimensions = Entry<62, OrtStatus*, const OrtTensorTypeAndShapeInfo*, int64_t*, size_t>;
using GetSymbolicDimensions = Entry<63, OrtStatus*, const OrtTensorTypeAndShapeInfo*, const char**, size_t>;
using GetTensorTypeAndShape = Entry<65, OrtStatus*, const OrtValue*, OrtTensorTypeAndShapeInfo**>;
using CreateCpuMemoryInfo = Entry<69, OrtStatus*, int, int, OrtMemoryInfo**>;
using AllocatorAlloc = Entry<75, OrtStatus*, OrtAllocator*, size_t, void**>;
using AllocatorFree = Entry<76, OrtStatus*, OrtAllocator*, void*>;
using GetAllocatorWithDefaultOptions = Entry<78, OrtStatus*, OrtAllocator**>;
using GetFloatAttribute = Entry<85, OrtStatus*, const OrtKernelInfo*, const char*, float*>;
using GetIntAttribute = Entry<86, OrtStatus*, const OrtKernelInfo*, const char*, int64_t*>;
using GetStringAttribute = Entry<87, OrtStatus*, const OrtKernelInfo*, const char*, char*, size_t*>;
using GetInputCount = Entry<88, OrtStatus*, const OrtKernelContext*, size_t*>;
using GetInput = Entry<90, OrtStatus*, const OrtKernelContext*, size_t, const OrtValue**>;
using GetOutput = Entry<91, OrtStatus*, OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**>;
using ReleaseStatus = Entry<93, void, OrtStatus*>;
using ReleaseSession = Entry<95, void, OrtSession*>;
using ReleaseValue = Entry<96, void, OrtValue*>;
using ReleaseTypeInfo = Entry<98, void, OrtTypeInfo*>;
using ReleaseTensorTypeAndShapeInfo = Entry<99, void, OrtTensorTypeAndShapeInfo*>;
using ReleaseSessionOptions = Entry<100, void, OrtSessionOptions*>;
using ReleaseCustomOpDomain = Entry<101, void, OrtCustomOpDomain*>;
using SessionEndProfiling = Entry<110, OrtStatus*, OrtSession*, OrtAllocator*, char**>;
using ReleaseAllocator = Entry<132, void, OrtAllocator*>;
using GetIntsAttribute = Entry<163, OrtStatus*, const OrtKernelInfo*, const char*, int64_t*, size_t*>;
using GetNodeName = Entry<244, OrtStatus*, const OrtKernelInfo*, char*, size_t*>;
using GetConstantInput = Entry<249, OrtStatus*, const OrtKernelInfo*, size_t, int*, const OrtValue**>;
using InferenceInputCount = Entry<267, OrtStatus*, const OrtShapeInferContext*, size_t*>;
using InferenceInput = Entry<268, OrtStatus*, const OrtShapeInferContext*, size_t, OrtTensorTypeAndShapeInfo**>;
using InferenceAttribute = Entry<269, OrtStatus*, const OrtShapeInferContext*, const char*, const OrtOpAttr**>;
using InferenceSetOutput = Entry<270, OrtStatus*, const OrtShapeInferContext*, size_t, const OrtTensorTypeAndShapeInfo*>;
using SetSymbolicDimensions = Entry<271, OrtStatus*, OrtTensorTypeAndShapeInfo*, const char**, size_t>;
using ReadAttribute = Entry<272, OrtStatus*, const OrtOpAttr*, int, void*, size_t, size_t*>;
using ParallelFor = Entry<274, OrtStatus*, const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*>;
using GetAllocator = Entry<278, OrtStatus*, const OrtKernelInfo*, int, OrtAllocator**>;

}  // namespace edgecomp::ort

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_ORT_ABI_H_
