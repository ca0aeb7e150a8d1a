// The instruction-set specific pieces of Matmul, as plain function pointers. matmul_isa.inc.h is
// compiled once per instruction set; matmul_cpu.cc picks a table at run time.
#ifndef MILLRACE_KERNELS_MATMUL_KERNELS_H_
#define MILLRACE_KERNELS_MATMUL_KERNELS_H_

#include <stdint.h>

#include "proto/dtype.h"

namespace millrace {

// Rows of x as int8 in blocks as long as the sub-blocks of the weights they meet, so that a product
// of two sub-blocks has one scale: x ~ scale * q. Row r of each array starts at r * (its row
// length).
struct QuantizedRows {
  int8_t* q = nullptr;     // [n, cols]
  float* scale = nullptr;  // [n, cols / block]
  float* sum = nullptr;    // [n, cols / block]: scale * sum of the block's codes
};

// Values of x that share a scale when they meet weights of this type: 16 or 32; 0 for float types.
inline int ActivationBlock(DType dtype) {
  if (!Info(dtype).quantized) return 0;
  return dtype == DType::kQ6_K || dtype == DType::kQ3_K || dtype == DType::kQ2_K ? 16 : 32;
}

// Where results go: y[t * stride + row], with optional bias[row].
struct MatmulOutput {
  float* y = nullptr;
  int64_t stride = 0;
  const float* bias = nullptr;
  bool accumulate = false;
};

struct MatmulArgs {
  const uint8_t* w = nullptr;  // first byte of row 0
  DType dtype = DType::kF32;
  int64_t row_bytes = 0;
  int64_t cols = 0;
  int64_t n = 0;             // rows of x
  QuantizedRows xq;          // quantised types, in blocks of ActivationBlock(dtype)
  const float* x = nullptr;  // float types: [n, cols], x_stride apart
  int64_t x_stride = 0;
  const uint16_t* xt = nullptr;  // for tiles: x as PackTiles leaves it
  MatmulOutput out;
};

// Columns of x that one call of `vector` handles at most.
inline constexpr int64_t kMaxVectorColumns = 16;

struct MatmulKernels {
  int panel_rows;  // rows of W that `panel` handles per call
  // Quantises one row of x in blocks of `block` (16 or 32) values; cols is a multiple of 32.
  void (*quantize_row)(const float* x, int64_t cols, int block, int8_t* q, float* scale,
                       float* sum);
  // Rows [begin, end) of W times n rows of x, at most kMaxVectorColumns where W is quantised.
  void (*vector)(const MatmulArgs& args, int64_t begin, int64_t end);
  // Up to panel_rows rows of quantised W from `begin` (fewer at the end of W) times all n rows of
  // x. `scratch` holds PanelScratchBytes(cols), 64-byte aligned.
  void (*panel)(const MatmulArgs& args, int64_t begin, int64_t end, void* scratch);
  void (*dequantize_row)(DType dtype, const void* row, int64_t cols, float* out);
};

// Bytes of scratch per thread for `panel`, any instruction set: 16 rows of codes and, per 16
// columns, 16 scales and 16 minima.
inline int64_t PanelScratchBytes(int64_t cols) {
  return 16 * cols + 2 * 16 * 4 * ((cols + 15) / 16) + 4096;
}

// Quantised products on tile registers (AMX), for more rows of x than `vector` is good at.
// Tiles of x: [blocks of 256 columns, ceil(n / 16), 8, 16, 16, 2] bf16 (the last block has fewer
// than 8 tiles where cols ends in it); cols is a multiple of 32.
inline constexpr int64_t kTileInputRows = 256;  // rows of x at most in one call
inline constexpr int64_t kTilePanelRows = 128;  // rows of W at most in one call
inline constexpr int64_t kTileBlock = 256;      // columns
inline constexpr int64_t kTileChunk = 512;      // columns of W unpacked at a time, at most

inline int64_t TileBlocks(int64_t cols) { return (cols + kTileBlock - 1) / kTileBlock; }

// One call's part of W.
struct TileWork {
  int64_t begin = 0, end = 0;  // rows, at most kTilePanelRows
  int64_t limit = 0;           // the thread goes on with rows [end, limit): they are asked for
  bool cold = true;            // nobody has asked for [begin, end) yet
  int64_t chunk = kTileBlock;  // columns unpacked at a time, a multiple of kTileBlock
  bool unpack = true, multiply = true;  // measurements do only one
};

struct TileKernels {
  // Units [first, last) of x [n, cols], rows `stride` values apart: unit b * ceil(n / 16) + g is
  // block b of 256 columns of the g-th 16 rows; there are TileBlocks(cols) * ceil(n / 16).
  void (*pack)(const float* x, int64_t stride, int64_t n, int64_t cols, int64_t first, int64_t last,
               uint16_t* tiles);
  // Rows of W with args.xt. `scratch` holds TilePanelScratchBytes(args.n), 64-byte aligned.
  void (*panel)(const MatmulArgs& args, const TileWork& work, void* scratch);
};

inline int64_t TileInputBytes(int64_t n, int64_t cols) { return (n + 15) / 16 * 16 * cols * 2; }

// Two chunks of W as bf16 and the sums.
inline int64_t TilePanelScratchBytes(int64_t n) {
  return 2 * kTilePanelRows * kTileChunk * 2 + kTilePanelRows * ((n + 15) / 16 * 16) * 4;
}

// What one instruction set has. `tiles` is null where there are no tile registers.
struct MatmulTables {
  const MatmulKernels& kernels;
  const TileKernels* tiles = nullptr;
};

const MatmulKernels& ScalarMatmulKernels();
const MatmulKernels& Avx2MatmulKernels();    // x86-64 only
const MatmulKernels& Avx512MatmulKernels();  // x86-64 only
const TileKernels& AmxTileKernels();         // x86-64 only

}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_KERNELS_H_
