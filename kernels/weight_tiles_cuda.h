// Making WeightTiles on a CUDA device from a file's rows, and f16 rows from tiles.
#ifndef MILLRACE_KERNELS_WEIGHT_TILES_CUDA_H_
#define MILLRACE_KERNELS_WEIGHT_TILES_CUDA_H_

#include <cuda_fp16.h>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/weight_tiles.h"

namespace millrace::cuda {

// Fills the tiles of rows [first_row, first_row + rows) of a matrix from `raw`: those rows as they
// lie in the file (device memory, RowBytes(source, tiles.cols) each, any alignment). first_row is a
// multiple of 16; the last strip of the matrix is filled up with zeros. For BF16 and F32 the values
// are divided by tiles.multiplier first. Asynchronous.
absl::Status TileRows(DType source, const uint8_t* raw, int64_t first_row, int64_t rows,
                      const WeightTiles& tiles, uint8_t* data, StreamView stream);

// out[r, c] = tile value (without multiplier), row-major f16 [rows, ld], ld >= cols, multiple of 8.
// 16-byte aligned. Each value is rounded to f16 once or twice. Asynchronous.
absl::Status DequantizeTiles(const WeightTiles& tiles, __half* out, int64_t ld, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WEIGHT_TILES_CUDA_H_
