// The library's entry point: what InferenceSession calls for register_custom_ops_library(path).
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "adapters/onnxruntime/custom_op.h"
#include "ops/op_table.h"

namespace edgecomp::ort {
namespace {

// A domain and its operators outlive every session that uses them: they are made once a process and never released.
struct Domain {
  OrtCustomOpDomain* domain;
  OpDescription ops[kOpCount];
};

OrtStatus* MakeDomain(Api api, Domain** made) {
  void* memory = std::calloc(1, sizeof(Domain));
  if (memory == nullptr) return CreateStatus::Call(api, kFail, "edgecomp: no memory to register the operators");
  auto* domain = new (memory) Domain();
  OrtStatus* status = CreateCustomOpDomain::Call(api, "ai.edgecomp", &domain->domain);
  for (size_t i = 0; i < kOpCount && status == nullptr; ++i) {
    DescribeOp(*AllOps().ops[i], api, &domain->ops[i]);
    status = CustomOpDomainAdd::Call(api, domain->domain, &domain->ops[i]);
  }
  if (status == nullptr) {
    *made = domain;
    return nullptr;
  }
  if (domain->domain != nullptr) ReleaseCustomOpDomain::Call(api, domain->domain);
  std::free(memory);
  return status;
}

OrtStatus* SharedDomain(Api api, Domain** domain) {
  static std::atomic<Domain*> shared{nullptr};
  *domain = shared.load();
  if (*domain != nullptr) return nullptr;
  EC_ORT_RETURN_IF_ERROR(MakeDomain(api, domain));
  Domain* first = nullptr;
  if (!shared.compare_exchange_strong(first, *domain)) {  // another thread was faster
    ReleaseCustomOpDomain::Call(api, (*domain)->domain);
    std::free(*domain);
    *domain = first;
  }
  return nullptr;
}

// An error for a runtime whose table of version 18 is not to be had: CreateStatus is in the table of every version.
OrtStatus* TooOld(const OrtApiBase* base) {
  const Api oldest = base->GetApi(1);
  if (oldest == nullptr) return nullptr;
  char message[160];
  std::snprintf(message, sizeof(message), "edgecomp's operators need ONNX Runtime 1.18 or later, got %s", base->GetVersionString());
  return CreateStatus::Call(oldest, kNotImplemented, message);
}

}  // namespace
}  // namespace edgecomp::ort

extern "C" EC_API OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  namespace ort = edgecomp::ort;
  const ort::Api api = base->GetApi(ort::kApiVersion);
  if (api == nullptr) return ort::TooOld(base);

  const char* variant = nullptr;
  const ec_status status = ec_variant_selected(&variant);
  if (status != EC_OK) {
    const char* forced = std::getenv("EDGECOMP_FORCE_ISA");
    char message[256];
    std::snprintf(message, sizeof(message), "edgecomp: %s; got EDGECOMP_FORCE_ISA=%s", ec_status_message(status),
                  forced != nullptr ? forced : "");
    return ort::CreateStatus::Call(api, ort::kInvalidArgument, message);
  }
  ort::Domain* domain = nullptr;
  EC_ORT_RETURN_IF_ERROR(ort::SharedDomain(api, &domain));
  return ort::AddCustomOpDomain::Call(api, options, domain->domain);
}
