// Products of quantised weights with few activation rows on a CUDA device: the decode kernels.
#ifndef MILLRACE_KERNELS_MATMUL_CUDA_H_
#define MILLRACE_KERNELS_MATMUL_CUDA_H_

#include <cuda_fp16.h>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/weight_tiles.h"

namespace millrace::cuda {

// Largest number of activation rows; beyond it dequantise (DequantizeTiles) and use cuBLAS.
inline constexpr int kSmallMatmulRows = 64;

// y[i, r] (+)= multiplier * sum_k x[i, k] * W[r, k] (+ bias[r]), i in [0, n), n <= kSmallMatmulRows.
// x: [n, w.cols] f16, rows ldx halves apart, 16-byte aligned rows. y: f32, rows ldy floats apart.
// Codes times scales are rounded to f16, products accumulate in FP32 on the tensor cores, in an order
// that depends on shapes only: the same input gives the same bits.
// The caller guarantees that no kernel queued before writes w.data: it is read early (launch.cuh).
absl::Status SmallMatmul(const WeightTiles& w, const __half* x, int64_t ldx, int n, const float* bias,
                         bool accumulate, float* y, int64_t ldy, StreamView stream);

// out[i, r] = silu(gate . x[i]) * (up . x[i]) as f16 (saturated), rows ldo halves apart. gate and up:
// equal type, shape; silu(v) = v / (1 + exp(-v)).
absl::Status SmallMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const __half* x,
                               int64_t ldx, int n, __half* out, int64_t ldo, StreamView stream);

// The input of the two products below: one row, before its RMS norm (kernels/norm.h), which every
// block makes for itself: one launch less, hidden behind the weights that are on their way.
struct RowToNorm {
  const float* hidden = nullptr;  // [cols] f32, 16-byte aligned
  const float* weight = nullptr;  // [cols] f32, 16-byte aligned
  float epsilon = 0;
};
// At most this many columns: the row stands in shared memory.
inline constexpr int64_t kMaxNormCols = 16384;

// As SmallMatmul of the normed row; y: [w.rows].
absl::Status NormMatmul(const WeightTiles& w, const RowToNorm& x, const float* bias, float* y,
                        StreamView stream);
// As SmallMatmulSwiGlu of the normed row; out: [gate.rows].
absl::Status NormMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const RowToNorm& x,
                              __half* out, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATMUL_CUDA_H_
