// Files of one array in numpy's format .npy (numpy.lib.format), version 1.0, in C order and little endian: inputs, outputs, and the
// golden vectors of the tests.
#ifndef EDGECOMP_RUNNER_NPY_H_
#define EDGECOMP_RUNNER_NPY_H_

#include <string>

#include "runner/tensor.h"

namespace edgecomp::runner {

// Fills everything of the tensor but its name. Returns what is wrong with the file, as the end of "FILE must be a .npy file ...";
// empty where nothing is.
std::string ReadNpy(const std::string& path, Tensor* tensor);

// The file's bytes before the data.
std::string NpyHeader(const TensorView& tensor);

}  // namespace edgecomp::runner

#endif  // EDGECOMP_RUNNER_NPY_H_
