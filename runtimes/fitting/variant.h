// The kernels of the instruction set that the including file is compiled for.
#include "fitting/compensate.h"
#include "fitting/kmeans.h"
#include "fitting/pack.h"
#include "fitting/tile_fit.h"

namespace edgecomp::fitting::FITTING_ISA {

inline constexpr Kernels kVariant = {LoadTile, FirstSteps, SearchSteps, AddHistogram,    KmeansOnGrid,
                                     FitTile,  AddSquares, PackTile,    CompensatePanel, Panel::FloatCount};

}  // namespace edgecomp::fitting::FITTING_ISA
