#include "runner/variants.h"

#include <dlfcn.h>

#include "edgecomp/edgecomp.h"

namespace edgecomp::runner {

NamedTexts LoadedVariants(const std::string& path) {
  if (path.empty()) return {};
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
  NamedTexts variants;
  if (library == nullptr) return variants;
  const auto kernel_name = reinterpret_cast<decltype(&ec_kernel_name)>(dlsym(library, "ec_kernel_name"));
  const auto variant_of = reinterpret_cast<decltype(&ec_variant_of)>(dlsym(library, "ec_variant_of"));
  if (variant_of == nullptr || kernel_name == nullptr) return variants;
  for (int32_t i = 0; const char* kernel = kernel_name(i); ++i) {
    const char* variant = nullptr;
    if (variant_of(kernel, &variant) == EC_OK) variants.emplace_back(kernel, variant);
  }
  return variants;
}

}  // namespace edgecomp::runner
