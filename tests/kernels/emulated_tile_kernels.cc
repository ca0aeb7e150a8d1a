#include "tests/kernels/emulated_tile_kernels.h"

#include "kernels/matmul_tiles.inc.h"
#include "tests/kernels/emulated_tiles.h"

namespace millrace {

const TileKernels& EmulatedTileKernels() {
  static constexpr TileKernels kKernels = {PackTiles, TilePanelOf<EmulatedTiles>};
  return kKernels;
}

}  // namespace millrace
