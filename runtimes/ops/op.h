// An operator for every runtime: what it does with a call, once, and what it asks of its host. Adapters read a call (call.h), are a
// Host, and call RunOp; they know neither formats nor operators.
#ifndef EDGECOMP_OPS_OP_H_
#define EDGECOMP_OPS_OP_H_

#include <type_traits>

#include "core/isa.h"
#include "ops/call.h"

namespace edgecomp {

// A value of a type that only its owner knows: a format's view of a factor, a kernel's plan.
template <size_t kBytes>
struct Opaque {
  alignas(8) unsigned char bytes[kBytes];

  template <class T>
  T& as() {
    static_assert(sizeof(T) <= kBytes && alignof(T) <= 8 && std::is_trivially_copyable_v<T>);
    return *reinterpret_cast<T*>(bytes);
  }
  template <class T>
  const T& as() const {
    return const_cast<Opaque*>(this)->as<T>();
  }
};
using Factor = Opaque<128>;

// How a format's factor is bound and checked: one a format.
struct Binder {
  // The factor of a call, which borrows the tensors; sizes and shapes are checked, values are not. Types were checked before.
  bool (*bind)(const OpCall& call, Factor* factor, Message* message);
  // Bytes that `check_values` needs.
  size_t (*scratch_bytes)(const Factor& factor);
  // Every value: once a factor.
  ec_status (*check_values)(const Factor& factor, void* scratch);
  // What keeps a kernel inside the arrays: for memory that may have changed since.
  ec_status (*check_bounds)(const Factor& factor);
};

// What a call was prepared to.
struct OpPlan {
  Shape output;
  size_t workspace_bytes = 0;
  Opaque<768> kernel;
};

// A kernel that an operator chooses a variant of, as a rule under its own name, and the variant where `selected` runs.
struct OpKernel {
  const char* name;
  Isa (*isa_for)(Isa selected);
};

struct Op {
  const OpSchema* schema;
  const Binder* binder;  // null where there is no factor
  // The shape of the output. A dimension of `first`, the first input's shape, is negative where it is not known; such a one may be
  // copied to the output. False where the shape is refused or depends on what is not known; types of inputs were checked where the
  // call has them.
  bool (*output_shape)(const OpCall& call, const Shape& first, Shape* output, Message* message);
  // Checks the inputs that are not the factor's, and plans; plan->output is set already.
  bool (*prepare)(const OpCall& call, const Factor& factor, const ec_parallel* parallel, OpPlan* plan, Message* message);
  ec_status (*run)(const OpCall& call, const Factor& factor, const OpPlan& plan, const ec_parallel* parallel, void* workspace,
                   void* y);
  const OpKernel* kernels = nullptr;
  size_t kernel_count = 0;  // none: plain C++, under the operator's name
};

// All operators of this build.
struct OpList {
  const Op* const* ops;
  size_t count;
};
OpList AllOps();

// What a call asks of its runtime. A function that fails returns null, and the host keeps why.
class Host {
 public:
  virtual const ec_parallel* parallel() = 0;
  // Memory for the output, of the type that the schema says.
  virtual void* Output(const Shape& shape) = 0;
  // Memory until the end of the call; not asked for no bytes.
  virtual void* Temporary(size_t bytes) = 0;
  // Whether all values of this factor were checked before, in which case its bounds are checked alone.
  virtual bool WasChecked(const Factor&) { return false; }
  virtual void RememberChecked(const Factor&) {}

 protected:
  ~Host() = default;
};

// Binds and checks the factor of a call.
bool BindFactor(const Op& op, const OpCall& call, Host* host, Factor* factor, Message* message);

// Runs a call. `bound` is its factor where BindFactor made it before and the memory is constant; null otherwise. False where the
// call is refused, by `message` or by the host.
bool RunOp(const Op& op, const OpCall& call, const Factor* bound, Host* host, Message* message);

}  // namespace edgecomp

#endif  // EDGECOMP_OPS_OP_H_
