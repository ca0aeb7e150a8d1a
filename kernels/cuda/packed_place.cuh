// Where a value of PackedRows (kernels/packed_rows_cuda.h) stands.
#ifndef MILLRACE_KERNELS_CUDA_PACKED_PLACE_CUH_
#define MILLRACE_KERNELS_CUDA_PACKED_PLACE_CUH_

#include <stdint.h>

namespace millrace::cuda {

// Byte offset of columns `column` (even) and column + 1 of a row. `atoms`: PackedAtoms(n).
__device__ __forceinline__ int64_t PackedPlace(int atoms, int row, int column) {
  const int piece = column % 64 / 32 * 4 + column % 8 / 2, in_atom = row % 8;
  return (static_cast<int64_t>(column / 64) * atoms + row / 8) * 1024 + in_atom * 128 +
         (piece ^ in_atom) * 16 + column % 32 / 8 * 4;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_PACKED_PLACE_CUH_
