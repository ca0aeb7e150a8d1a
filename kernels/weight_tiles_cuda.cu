#include "absl/strings/str_cat.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tile_codec.cuh"
#include "kernels/weight_tiles_cuda.h"

namespace millrace::cuda {
namespace {

constexpr int kWarps = 8;

struct TileGrid {
  int64_t rows, cols;       // of the matrix
  int64_t tiles_per_strip;  // along a strip
  __host__ __device__ int64_t tiles() const { return (rows + 15) / 16 * tiles_per_strip; }
};

template <DType T>
TileGrid GridOf(int64_t rows, int64_t cols) {
  constexpr int kCols = TileCodec<T>::kTileCols;
  return {rows, cols, (cols + kCols - 1) / kCols};
}

// One warp per tile.
template <DType T>
__global__ void __launch_bounds__(32 * kWarps)
    TileRowsKernel(const uint8_t* raw, TileGrid grid, uint8_t* tiles) {
  using Codec = TileCodec<T>;
  constexpr int kBlocksPerTile = Codec::kTileCols / Codec::kBlock;
  WaitForPrevious();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= grid.tiles()) return;
  const int lane = threadIdx.x % 32;
  const int64_t strip = index / grid.tiles_per_strip, k = index % grid.tiles_per_strip;
  const int64_t blocks_per_row = grid.cols / Codec::kBlock;
  uint8_t* tile = tiles + index * Codec::kTileBytes;
  auto block = [&](int64_t row, int64_t b) -> const uint8_t* {
    if (row >= grid.rows || b >= blocks_per_row) return nullptr;
    return raw + (row * blocks_per_row + b) * Codec::kBlockBytes;
  };
  for (int group = 0; group < Codec::kTileCols / 32; ++group) {
    for (int r = 0; r < 2; ++r) {
      const int at = 32 * group + 8 * (lane % 4);
      const uint8_t* b = block(16 * strip + lane / 4 + 8 * r, k * kBlocksPerTile + at / Codec::kBlock);
      uint8_t codes[8];
      for (int i = 0; i < 8; ++i) codes[i] = b ? Codec::RawCode(b, (at + i) % Codec::kBlock) : 0;
      Codec::PutCodes(tile, lane, group, r, codes);
    }
  }
  if (lane < 16) {
    const uint8_t* blocks[kBlocksPerTile];
    for (int i = 0; i < kBlocksPerTile; ++i) {
      blocks[i] = block(16 * strip + lane, k * kBlocksPerTile + i);
    }
    Codec::PutScales(tile, lane, blocks);
  }
}

template <DType kSource>
__device__ float FloatAt(const uint8_t* raw, int64_t i) {
  if (kSource == DType::kF32) {
    const uint8_t* p = raw + 4 * i;
    return __uint_as_float(p[0] | (p[1] << 8) | (p[2] << 16) | (static_cast<uint32_t>(p[3]) << 24));
  }
  const uint8_t* p = raw + 2 * i;
  if (kSource == DType::kBF16) return __uint_as_float(static_cast<uint32_t>(p[0] | (p[1] << 8)) << 16);
  return __half2float(HalfAt(p));
}

// F16 tiles: one thread per eight values of one row.
template <DType kSource>
__global__ void __launch_bounds__(32 * kWarps)
    TileFloatsKernel(const uint8_t* raw, TileGrid grid, float scale, uint8_t* tiles) {
  using Codec = TileCodec<DType::kF16>;
  WaitForPrevious();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= grid.tiles()) return;
  const int lane = threadIdx.x % 32;
  const int64_t strip = index / grid.tiles_per_strip, k = index % grid.tiles_per_strip;
  uint8_t* tile = tiles + index * Codec::kTileBytes;
  for (int i = 0; i < 4; ++i) {
    const int64_t row = 16 * strip + lane / 4 + 8 * (i % 2);
    const int64_t col = k * Codec::kTileCols + 32 * (i / 2) + 8 * (lane % 4);
    __half values[8];
    for (int c = 0; c < 8; ++c) {
      const bool inside = row < grid.rows && col + c < grid.cols;
      values[c] =
          SaturatedHalf(inside ? FloatAt<kSource>(raw, row * grid.cols + col + c) * scale : 0.0f);
    }
    *reinterpret_cast<uint4*>(tile + 512 * i + 16 * lane) = *reinterpret_cast<uint4*>(values);
  }
}

template <DType T>
__global__ void __launch_bounds__(32 * kWarps)
    DequantizeKernel(const uint8_t* tiles, TileGrid grid, __half* out, int64_t ld) {
  using Codec = TileCodec<T>;
  LetNextStart();
  WaitForPrevious();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (index >= grid.tiles()) return;
  const int lane = threadIdx.x % 32;
  const int64_t strip = index / grid.tiles_per_strip, k = index % grid.tiles_per_strip;
  const uint8_t* tile = tiles + index * Codec::kTileBytes;
  const int64_t row = 16 * strip + lane / 4;
  const int64_t col = k * Codec::kTileCols + 8 * (lane % 4);
  const typename Codec::Scales scales = Codec::LoadScales(tile, lane);
#pragma unroll
  for (int step = 0; step < Codec::kTileCols / 32 / Codec::kStep; ++step) {
    const typename Codec::Codes codes = Codec::LoadCodes(tile, lane, step);
#pragma unroll
    for (int j = 0; j < Codec::kStep; ++j) {
      uint32_t a[8];
      Codec::Fragments(codes, scales, step, j, a);
      const int64_t c = col + 32 * (step * Codec::kStep + j);
      if (c >= grid.cols) continue;
      if (row < grid.rows) {
        *reinterpret_cast<uint4*>(out + row * ld + c) = make_uint4(a[0], a[2], a[4], a[6]);
      }
      if (row + 8 < grid.rows) {
        *reinterpret_cast<uint4*>(out + (row + 8) * ld + c) = make_uint4(a[1], a[3], a[5], a[7]);
      }
    }
  }
}

unsigned BlocksFor(const TileGrid& grid) {
  return static_cast<unsigned>((grid.tiles() + kWarps - 1) / kWarps);
}

template <DType T>
absl::Status TileQuantized(const uint8_t* raw, int64_t rows, int64_t cols, uint8_t* data,
                           StreamView stream) {
  const TileGrid grid = GridOf<T>(rows, cols);
  return Launch(TileRowsKernel<T>, BlocksFor(grid), 32 * kWarps, 0, stream, raw, grid, data);
}

template <DType kSource>
absl::Status TileFloats(const uint8_t* raw, int64_t rows, int64_t cols, float multiplier,
                        uint8_t* data, StreamView stream) {
  const TileGrid grid = GridOf<DType::kF16>(rows, cols);
  return Launch(TileFloatsKernel<kSource>, BlocksFor(grid), 32 * kWarps, 0, stream, raw, grid,
                1.0f / multiplier, data);
}

template <DType T>
absl::Status Dequantize(const WeightTiles& tiles, __half* out, int64_t ld, StreamView stream) {
  const TileGrid grid = GridOf<T>(tiles.rows, tiles.cols);
  return Launch(DequantizeKernel<T>, BlocksFor(grid), 32 * kWarps, 0, stream, tiles.data, grid, out,
                ld);
}

}  // namespace

absl::Status TileRows(DType source, const uint8_t* raw, int64_t first_row, int64_t rows,
                      const WeightTiles& tiles, uint8_t* data, StreamView stream) {
  MILLRACE_CHECK(first_row % kTileRows == 0 && rows > 0 && first_row + rows <= tiles.rows);
  MILLRACE_CHECK(rows % kTileRows == 0 || first_row + rows == tiles.rows);
  data += TiledBytes(tiles.dtype, first_row, tiles.cols).count();
  const int64_t cols = tiles.cols;
  switch (source) {
    case DType::kF32: return TileFloats<DType::kF32>(raw, rows, cols, tiles.multiplier, data, stream);
    case DType::kF16: return TileFloats<DType::kF16>(raw, rows, cols, tiles.multiplier, data, stream);
    case DType::kBF16: return TileFloats<DType::kBF16>(raw, rows, cols, tiles.multiplier, data, stream);
    case DType::kQ8_0: return TileQuantized<DType::kQ8_0>(raw, rows, cols, data, stream);
    case DType::kQ4_0: return TileQuantized<DType::kQ4_0>(raw, rows, cols, data, stream);
    case DType::kQ4_1: return TileQuantized<DType::kQ4_1>(raw, rows, cols, data, stream);
    case DType::kQ5_0: return TileQuantized<DType::kQ5_0>(raw, rows, cols, data, stream);
    case DType::kQ5_1: return TileQuantized<DType::kQ5_1>(raw, rows, cols, data, stream);
    case DType::kQ4_K: return TileQuantized<DType::kQ4_K>(raw, rows, cols, data, stream);
    case DType::kQ5_K: return TileQuantized<DType::kQ5_K>(raw, rows, cols, data, stream);
    case DType::kQ6_K: return TileQuantized<DType::kQ6_K>(raw, rows, cols, data, stream);
    case DType::kQ3_K: return TileQuantized<DType::kQ3_K>(raw, rows, cols, data, stream);
    case DType::kQ2_K: return TileQuantized<DType::kQ2_K>(raw, rows, cols, data, stream);
  }
  return absl::InternalError("TileRows: unknown type");
}

absl::Status DequantizeTiles(const WeightTiles& tiles, __half* out, int64_t ld, StreamView stream) {
  MILLRACE_CHECK(ld >= tiles.cols && ld % 8 == 0 && tiles.cols % 8 == 0);
  switch (tiles.dtype) {
    case DType::kF16: return Dequantize<DType::kF16>(tiles, out, ld, stream);
    case DType::kQ8_0: return Dequantize<DType::kQ8_0>(tiles, out, ld, stream);
    case DType::kQ4_0: return Dequantize<DType::kQ4_0>(tiles, out, ld, stream);
    case DType::kQ4_1: return Dequantize<DType::kQ4_1>(tiles, out, ld, stream);
    case DType::kQ5_0: return Dequantize<DType::kQ5_0>(tiles, out, ld, stream);
    case DType::kQ5_1: return Dequantize<DType::kQ5_1>(tiles, out, ld, stream);
    case DType::kQ4_K: return Dequantize<DType::kQ4_K>(tiles, out, ld, stream);
    case DType::kQ5_K: return Dequantize<DType::kQ5_K>(tiles, out, ld, stream);
    case DType::kQ6_K: return Dequantize<DType::kQ6_K>(tiles, out, ld, stream);
    case DType::kQ3_K: return Dequantize<DType::kQ3_K>(tiles, out, ld, stream);
    case DType::kQ2_K: return Dequantize<DType::kQ2_K>(tiles, out, ld, stream);
    default: return absl::InternalError("DequantizeTiles: not a tiled type");
  }
}

}  // namespace millrace::cuda
