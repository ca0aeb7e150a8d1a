// Products of quantised weights with several or many activation rows on Hopper's warpgroup tensor
// cores: weights become f16 in registers, on their way from tiles to the products. Nothing
// dequantised is ever stored.
#ifndef MILLRACE_KERNELS_WIDE_MATMUL_CUDA_H_
#define MILLRACE_KERNELS_WIDE_MATMUL_CUDA_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/stream.h"
#include "kernels/packed_rows_cuda.h"
#include "kernels/weight_tiles.h"

namespace millrace::cuda {

// Whether the device has these products (compute capability 9.0) and the build contains them.
bool HasWideMatmul(int device);

// Matrices that share their input; results of one follow those of the one before in y's rows.
struct WideMatrix {
  WeightTiles tiles;
  const float* bias = nullptr;  // [tiles.rows], or null
};
inline constexpr int kMostWideMatrices = 4;

// y[i, r] (+)= multiplier * sum_k x[i, k] * W[r, k] (+ bias[r]). y: f32, rows ldy floats apart.
// Codes times scales are rounded to f16, products accumulate in FP32 in an order that depends on
// shapes only. The caller guarantees that no kernel queued before writes weights: they are read
// early (launch.cuh). `tokens`: rows of x in a tile, one of kWideTokens (wide_matmul_params.h); 0:
// as fits the shape.
absl::Status WideMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x, bool accumulate,
                        float* y, int64_t ldy, StreamView stream, int tokens = 0);

// Whether gate and up of these types can be multiplied together: both K types, or neither.
bool WideSwiGluTakes(DType gate, DType up);

// out[i, r] = silu(gate . x[i]) * (up . x[i]) as f16, saturated, packed: out.cols = gate.rows =
// up.rows. Rows that fill up the last atom are written too.
absl::Status WideMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                              const PackedRows& out, StreamView stream, int tokens = 0);

// Up to this many rows of x there is a kernel that is bound by reading weights; WideMatmul uses it.
inline constexpr int kMostNarrowRows = 64;
// `row_parts`: 64 weight rows of a block, 1 (up to 32 rows of x), 2 or 4; 0: as fits the shape.
absl::Status NarrowMatmul(absl::Span<const WideMatrix> matrices, const PackedRows& x,
                          bool accumulate, float* y, int64_t ldy, StreamView stream,
                          int row_parts = 0);
// WideMatmulSwiGlu of weights of one type. The first is not packed: rows ldo halves apart, no other
// value is written.
absl::Status NarrowMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                                __half* out, int64_t ldo, StreamView stream);
absl::Status NarrowMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const PackedRows& x,
                                const PackedRows& out, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_MATMUL_CUDA_H_
