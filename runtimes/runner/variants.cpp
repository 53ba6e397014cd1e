#include "runner/variants.h"

#include <dlfcn.h>

#include "edgecomp/edgecomp.h"

namespace edgecomp::runner {

NamedTexts LoadedVariants(const std::string& path) {
  if (path.empty()) return {};
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
  const auto variant_of =
      library == nullptr ? nullptr : reinterpret_cast<decltype(&ec_variant_of)>(dlsym(library, "ec_variant_of"));
  NamedTexts variants;
  for (const char* operator_name : {"lut_matmul", "lut_gather", "lut_conv2d", "lut_conv2d_grouped", "lut_narrow_conv2d"}) {
    const char* variant = nullptr;
    if (variant_of != nullptr && variant_of(operator_name, &variant) == EC_OK) variants.emplace_back(operator_name, variant);
  }
  return variants;
}

}  // namespace edgecomp::runner
