// Part of the shared library only.
#include "edgecomp/executorch.h"

namespace {
[[maybe_unused]] const int32_t added = ec_executorch_register();
}  // namespace
