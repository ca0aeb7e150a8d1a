// The AMX kernels on emulated tiles: everything but the tile instructions is what runs on AMX.
// They need AVX512-BF16 (HasAvx512Bf16()).
#ifndef MILLRACE_TESTS_KERNELS_EMULATED_TILE_KERNELS_H_
#define MILLRACE_TESTS_KERNELS_EMULATED_TILE_KERNELS_H_

#include "kernels/matmul_kernels.h"

namespace millrace {

const TileKernels& EmulatedTileKernels();

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_EMULATED_TILE_KERNELS_H_
