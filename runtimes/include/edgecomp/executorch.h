/* The operators edgecomp::lut_*.out for ExecuTorch, in the libraries edgecomp_executorch (shared) and edgecomp_executorch_static.
 */
#ifndef EDGECOMP_EXECUTORCH_H_
#define EDGECOMP_EXECUTORCH_H_

#include "edgecomp/edgecomp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Registers the operators with ExecuTorch's runtime, once however often it is called; returns how many this call added. The shared
 * library calls it when it is loaded; a program that links the static one calls it before it loads a method. */
EC_API int32_t ec_executorch_register(void);

/* The release of ExecuTorch that this library was built for, such as "1.5.1": it runs with no other. */
EC_API const char* ec_executorch_version(void);

#ifdef __cplusplus
}
#endif

#endif /* EDGECOMP_EXECUTORCH_H_ */
