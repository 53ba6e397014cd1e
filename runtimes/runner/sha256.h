// SHA-256 (FIPS 180-4), for the outputs' digests.
#ifndef EDGECOMP_RUNNER_SHA256_H_
#define EDGECOMP_RUNNER_SHA256_H_

#include <cstddef>
#include <string>

namespace edgecomp::runner {

// In hexadecimal.
std::string Sha256(const void* data, size_t bytes);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_SHA256_H_
