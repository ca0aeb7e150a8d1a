// Matmul's inner loops for amx (see CpuIsa): those of avx512, and tiles; compile flags in
// kernels/CMakeLists.txt.
#include "kernels/amx_tiles.h"
#include "kernels/matmul_tiles.inc.h"

namespace millrace {

const TileKernels& AmxTileKernels() {
  static constexpr TileKernels kKernels = {PackTiles, TilePanelOf<AmxTiles>};
  return kKernels;
}

}  // namespace millrace
