// The six inputs and four attributes that say a lut factor, the same in every lut operator.
#ifndef EDGECOMP_ADAPTERS_ONNXRUNTIME_FACTOR_INPUTS_H_
#define EDGECOMP_ADAPTERS_ONNXRUNTIME_FACTOR_INPUTS_H_

#include "adapters/onnxruntime/tensor.h"
#include "edgecomp/edgecomp.h"

namespace edgecomp::ort {

constexpr size_t kFirstFactorInput = 1;  // input 0 is x, or the indices
constexpr size_t kFactorInputs = 6;      // codes, codebooks, tile_book, scales, row_scale, row_index

class FactorInputs {
 public:
  // Reads the attributes. Where all arrays are constant, checks the factor once and keeps pointers to them: the initialisers
  // themselves, which a session maps from the model's file.
  OrtStatus* Initialize(Api api, const NodeName& name, const OrtKernelInfo* info, OrtAllocator* allocator);

  // The factor of a call: the constant one, or the call's own inputs, checked.
  OrtStatus* Get(const OrtKernelContext* context, ec_lut_factor* factor) const;

 private:
  OrtStatus* Bind(const Tensor (&arrays)[kFactorInputs], ec_lut_factor* factor) const;
  OrtStatus* FailWith(ec_status status, const ec_lut_factor& factor) const;
  OrtStatus* CheckShapes(const Tensor (&arrays)[kFactorInputs], const ec_lut_factor& factor) const;

  Api api_ = nullptr;
  const NodeName* name_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  bool constant_ = false;
  ec_lut_factor factor_ = {};  // without pointers unless constant_
};

}  // namespace edgecomp::ort

#endif  // EDGECOMP_ADAPTERS_ONNXRUNTIME_FACTOR_INPUTS_H_
