// What the wide product's kernel is told (kernels/wide_matmul.cuh).
#ifndef MILLRACE_KERNELS_WIDE_MATMUL_PARAMS_H_
#define MILLRACE_KERNELS_WIDE_MATMUL_PARAMS_H_

#include <cuda_fp16.h>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/wide_matmul_cuda.h"

namespace millrace::cuda {

struct WideParams {
  struct Matrix {
    const uint8_t* tiles = nullptr;
    int64_t strip_bytes = 0;
    int tile_bytes = 0;
    int tiles_per_strip = 0;
    int strips = 0, rows = 0;
    int first_row_tile = 0;  // of the launch's
    DType dtype = DType::kF16;
    float multiplier = 1;
    const float* bias = nullptr;
    int64_t column = 0;  // of y, where its results begin
  };
  Matrix matrix[kMostWideMatrices];
  int matrices = 0;
  const uint8_t* x = nullptr;
  int n = 0, atoms = 0;  // rows of x, and their atoms
  int blocks = 0;        // of 64 columns of x
  int row_pairs = 0;     // row tiles / 2, rounded up
  int token_tiles = 0;
  int row_parts = 0;  // of the narrow kernel: 64 weight rows of a block
  int slots = 0, slot_bytes = 0;  // of each warp's ring of weight tiles
  bool accumulate = false;
  float* y = nullptr;
  int64_t ldy = 0;
  uint8_t* out = nullptr;    // SwiGLU: packed
  uint32_t zero = 0;         // for MoveFragments (wgmma.cuh)
  __half* halves = nullptr;  // SwiGLU of the narrow kernel, unless packed: rows ldy apart
};

// Widths of a tile, in rows of x.
inline constexpr int kWideTokens[] = {256, 176, 128};

// The width that takes the fewest rounds of the device's clusters.
int BestWideTokens(int row_pairs, int64_t n, int clusters);

// One function per width, each defined in a .cu of its own, where the compiler has wgmma.
absl::Status WideMatmul128(const WideParams& p, bool k_types, bool swiglu, StreamView stream);
absl::Status WideMatmul176(const WideParams& p, bool k_types, bool swiglu, StreamView stream);
absl::Status WideMatmul256(const WideParams& p, bool k_types, bool swiglu, StreamView stream);

// Whether the two blocks of the narrow kernel's cluster have the same weight rows, each half of
// their columns; else different rows. With few rows a block, x is what a block reads most of.
constexpr bool NarrowHalves(int row_parts) { return row_parts < 4; }

// Of SwiGLU.
inline constexpr int kSwiGluRowParts = 4;

// The same of the narrow kernel (narrow_matmul.cuh), for K types and for the others.
absl::Status NarrowMatmulK(const WideParams& p, bool swiglu, StreamView stream);
absl::Status NarrowMatmulFlat(const WideParams& p, bool swiglu, StreamView stream);

// p.n is at most kMostNarrowRows. All matrices have the same type. row_pairs: units of a cluster,
// of 64 * row_parts weight rows (SwiGLU: half gate, half up) or, unless NarrowHalves, twice that.
absl::Status LaunchNarrowMatmul(const WideParams& p, bool swiglu, StreamView stream);

// `tokens`: one of kWideTokens. All matrices have K types, or none.
absl::Status LaunchWideMatmul(WideParams params, int tokens, bool swiglu, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_MATMUL_PARAMS_H_
