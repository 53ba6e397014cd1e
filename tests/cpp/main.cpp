#include <cstdio>

#include "check.h"
#include "core/isa.h"

int main() {
  for (int32_t i = 0; i < ec_variant_count(); ++i) {
    std::printf("variant %s: %s\n", ec_variant_name(i),
                ec_variant_available(i) != 0 ? "tested" : "NOT TESTED, this CPU cannot run it");
  }
  return edgecomp::test::RunAll();
}
