// WeightTiles: a weight matrix as the GPU keeps it.
//
// Rows are taken sixteen at a time (a strip), columns 64 or 256 at a time (a tile): the tiles of a
// strip lie one after the other, strips follow each other. Inside a tile every value sits where the
// thread that feeds it to the tensor cores reads it: lane l of a warp (g = l / 4, t = l % 4) owns, of
// each group of 32 columns, columns 8t .. 8t + 7 of rows g and g + 8. Codes, high bits and scales are
// planes of their own, so that all loads are 16 bytes wide and consecutive. A tile takes exactly the
// bytes of the blocks it was made from: the layout is free, speed is what it buys.
// kernels/cuda/tile_codec.cuh has each type's planes.
//
// BF16 and F32 matrices become F16 tiles whose largest magnitude is brought into F16's range by a
// power of two, undone by `multiplier`: BF16 loses nothing that is larger than 2^-29 of the largest
// weight, F32 keeps eleven bits.
#ifndef MILLRACE_KERNELS_WEIGHT_TILES_H_
#define MILLRACE_KERNELS_WEIGHT_TILES_H_

#include <cstdint>

#include "proto/device_layout.h"
#include "proto/dtype.h"

namespace millrace {

struct WeightTiles {
  const uint8_t* data = nullptr;  // device memory, 256-byte aligned; TiledBytes(dtype, rows, cols)
  DType dtype = DType::kF16;      // a TiledType
  int64_t rows = 0;
  int64_t cols = 0;
  float multiplier = 1.0f;  // values are `multiplier` times what the tiles hold
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_WEIGHT_TILES_H_
