// How many bytes weights take on a GPU, where matrices are kept in tiles of 16 rows (see
// kernels/weight_tiles.h), the embedding table as in the file, vectors as f32. The planner counts
// with it, the CUDA backend allocates with it.
#ifndef MILLRACE_PROTO_DEVICE_LAYOUT_H_
#define MILLRACE_PROTO_DEVICE_LAYOUT_H_

#include "proto/bytes.h"
#include "proto/dtype.h"

namespace millrace {

inline constexpr int kTileRows = 16;

// Columns of one tile: 256 for the K types, 64 for all others.
inline int TileCols(DType dtype) {
  return Info(dtype).block_elements == 256 ? 256 : 64;
}

// What a matrix of this type is stored as on a GPU.
inline DType TiledType(DType source) {
  return source == DType::kBF16 || source == DType::kF32 ? DType::kF16 : source;
}

// The same bytes per block as in the file, but two per value for F32, which becomes F16; rows are
// filled up to a multiple of 16 and columns to a multiple of TileCols.
inline Bytes TiledBytes(DType dtype, int64_t rows, int64_t cols) {
  dtype = TiledType(dtype);
  const int64_t tile_cols = TileCols(dtype);
  const int64_t full_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
  const int64_t full_cols = (cols + tile_cols - 1) / tile_cols * tile_cols;
  return RowBytes(dtype, full_cols) * full_rows;
}

// Tensors and buffers on a GPU begin at multiples of this.
inline constexpr Bytes kDeviceAlignment = 256_B;
// What the driver's allocator gives: memory of one purpose is taken from it in one piece.
inline constexpr Bytes kDeviceGrain = 2_MiB;

// What a GPU holds of its own to reach `locked` bytes of host memory: eight bytes for each page of 4 KiB.
// Measured: 58 MiB for 30 GiB, 34 for 18, 16 for 8 (docs/plan-accuracy.md).
inline Bytes LockedPageTables(Bytes locked) {
  constexpr int64_t kPage = 4096, kEntry = 8;
  const int64_t bytes = (locked.count() + kPage - 1) / kPage * kEntry, grain = kDeviceGrain.count();
  return Bytes((bytes + grain - 1) / grain * grain);
}

inline Bytes RoundUp(Bytes bytes, Bytes multiple) {
  return Bytes((bytes.count() + multiple.count() - 1) / multiple.count() * multiple.count());
}

// Norms and biases are kept as f32.
inline Bytes DeviceVectorBytes(int64_t cols) { return RoundUp(Bytes(4 * cols), kDeviceAlignment); }

}  // namespace millrace

#endif  // MILLRACE_PROTO_DEVICE_LAYOUT_H_
