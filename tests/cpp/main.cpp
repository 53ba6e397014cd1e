// edgecomp_tests [--selects VARIANT]: all tests, or only whether the library would run VARIANT.
#include <cstdio>
#include <cstring>

#include "check.h"
#include "core/isa.h"

namespace {

int RequireSelected(const char* expected) {
  const char* selected = nullptr;
  const ec_status status = ec_variant_selected(&selected);
  std::printf("selected: %s\n", status == EC_OK ? selected : ec_status_message(status));
  return status == EC_OK && std::strcmp(selected, expected) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--selects") == 0) return RequireSelected(argv[2]);
  for (int32_t i = 0; i < ec_variant_count(); ++i) {
    std::printf("variant %s: %s\n", ec_variant_name(i),
                ec_variant_available(i) != 0 ? "tested" : "NOT TESTED, this CPU cannot run it");
  }
  return edgecomp::test::RunAll();
}
