// The C interface of the fitting library: codebooks, codes and scales of `lut` factors. For hosts that compress; nothing on a
// device needs it. What is computed is said in edgecomp/fitting/lut_fit.py and compensation.py, whose PyTorch code is the
// reference.
#ifndef EDGECOMP_FITTING_FITTING_H_
#define EDGECOMP_FITTING_FITTING_H_

#include <stdint.h>

#define ECF_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// Rows of a matrix and how they are fitted. Arrays are borrowed.
typedef struct ecf_rows {
  const float* weights;  // [n, k], C-contiguous
  int64_t n;
  int64_t k;
  float scale;              // a power of two that weights are multiplied by
  const float* importance;  // [padded k]: of a column's errors; 0 for a column that is not real, which gets the padding code
  int64_t block_size;       // a multiple of 32 that divides the padded k
  int32_t bits;             // 1 to 8
  int32_t largest_entry;    // magnitude that entries may have
  int32_t threads;          // at least 1
} ecf_rows;

// A matrix that one layer's rows share, packed in panels of 8 columns.
typedef struct ecf_hessian {
  const float* panels;         // of H, by ecf_pack_panels
  const float* factor_panels;  // of R, upper triangular, H = R R^T, by ecf_pack_factor
} ecf_hessian;

// Where the fit of rows goes; layouts of edgecomp/formats/lut.md.
typedef struct ecf_fit {
  uint8_t* codes;    // [ceil16(n) / 16, padded k / 32, planes, 16, 4]
  int8_t* scales;    // [ceil16(n) / 16, padded k / block_size, 16]
  float* row_scale;  // [ceil16(n) / 16, 16], of weights without `scale`
  double* squares;   // [4]: squared differences and squared weights, plain; and as weighted
} ecf_fit;

ECF_API int32_t ecf_abi_version(void);

// Name of the instruction set that runs; null where EDGECOMP_FORCE_ISA is unknown or cannot run here.
ECF_API const char* ecf_variant(void);

// The codebook of a sample of rows: ascending integers, `entries` of them (2^bits, and 255 for 8 bits). 1 where memory is
// exhausted.
ECF_API int32_t ecf_fit_codebook(const ecf_rows* rows, int64_t refits, float* codebook);

// Centres [clusters] of the exact k-means of 255 ascending points with these masses, ascending. 1 where memory is exhausted.
ECF_API int32_t ecf_kmeans(const int64_t* mass, const double* points, int32_t clusters, double* centres);

// Codes and scales of rows given the codebook, fitted to the importance or, if not null, to the Hessian. 1 where memory is
// exhausted.
ECF_API int32_t ecf_fit_rows(const ecf_rows* rows, const float* codebook, const ecf_hessian* hessian, const ecf_fit* fit);

// matrix [k, k] to panels [k / 8, k, 8], k a multiple of 32.
ECF_API void ecf_pack_panels(const float* matrix, int64_t k, float* panels);

// The factor R to panels, from the upper triangle [k, k] of L^T, where L L^T is H with rows and columns in reverse order; what lies
// below the diagonal's panels is not written.
ECF_API void ecf_pack_factor(const double* reversed, int64_t k, float* panels);

#ifdef __cplusplus
}
#endif

#endif  // EDGECOMP_FITTING_FITTING_H_
