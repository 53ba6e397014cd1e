// Which kernel variants run in this process.
#ifndef EDGECOMP_RUNNER_VARIANTS_H_
#define EDGECOMP_RUNNER_VARIANTS_H_

#include <string>

#include "runner/backend.h"

namespace edgecomp::runner {

// The variant of each operator of the library at `path`, which the runtime has loaded: empty where there is none, or another
// library than ours.
NamedTexts LoadedVariants(const std::string& path);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_VARIANTS_H_
