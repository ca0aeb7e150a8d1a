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

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATMUL_CUDA_H_
