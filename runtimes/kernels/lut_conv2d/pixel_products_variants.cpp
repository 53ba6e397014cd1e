#include "kernels/lut_conv2d/pixel_products.h"

namespace edgecomp {

extern const PixelProductsKernels kPixelProductsAvx512Vnni;
extern const PixelProductsKernels kPixelProductsAvxVnni;
extern const PixelProductsKernels kPixelProductsAvx2;
extern const PixelProductsKernels kPixelProductsNeonDotprod;
extern const PixelProductsKernels kPixelProductsNeon;
extern const PixelProductsKernels kPixelProductsRef;

namespace {

constexpr Variant<PixelProductsKernels> kVariants[] = {
#if defined(__x86_64__)
    {Isa::kAvx512Vnni, &kPixelProductsAvx512Vnni},
    {Isa::kAvxVnni, &kPixelProductsAvxVnni},
    {Isa::kAvx2, &kPixelProductsAvx2},
#elif defined(__aarch64__)
    {Isa::kNeonDotprod, &kPixelProductsNeonDotprod},
    {Isa::kNeon, &kPixelProductsNeon},
#endif
    {Isa::kRef, &kPixelProductsRef},
};

}  // namespace

const PixelProductsKernels& PixelProductsFor(Isa isa) { return *VariantFor(kVariants, isa)->kernels; }

Isa PixelProductsIsaFor(Isa isa) { return VariantFor(kVariants, isa)->isa; }

}  // namespace edgecomp
