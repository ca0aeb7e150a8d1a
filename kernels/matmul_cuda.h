// Products of quantised weights with few activation rows on a CUDA device: the decode kernels.
#ifndef MILLRACE_KERNELS_MATMUL_CUDA_H_
#define MILLRACE_KERNELS_MATMUL_CUDA_H_

#include <cuda_fp16.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"
#include "kernels/deferred_norm_cuda.h"
#include "kernels/small_matmul_params.h"
#include "kernels/matvec_cuda.h"
#include "kernels/weight_tiles.h"

namespace millrace::cuda {

// Largest number of activation rows; beyond it dequantise (DequantizeTiles) and use cuBLAS.
inline constexpr int kSmallMatmulRows = 64;

// n rows of f16, ldx halves apart, 16-byte aligned.
struct MatmulInput {
  const __half* x = nullptr;
  int64_t ldx = 0;
  int n = 0;  // 1..kSmallMatmulRows; with a norm at most kDeferredNormRows
  // Of x, where its rows are halves of a deferred norm. sums null: x is what it says.
  DeferredNorm norm;
  // Products of one input may run side by side: the first is told that more follow, the others that
  // they follow. Nothing else may be queued between them.
  bool leads = false, follows = false;
};

// y[i, r] (+)= multiplier * sum_k x[i, k] * W[r, k] (+ bias[r]). y: f32, rows ldy floats apart.
// Codes times scales are rounded to f16, products accumulate in FP32 on the tensor cores, in an order
// that depends on shapes only: the same input gives the same bits.
// The caller guarantees that no kernel queued before writes w.data or bias: they are read early
// (launch.cuh).
absl::Status SmallMatmul(const WeightTiles& w, const MatmulInput& x, const float* bias,
                         bool accumulate, float* y, int64_t ldy, StreamView stream);

// out[i, r] = silu(gate . x[i]) * (up . x[i]) as f16 (saturated), rows ldo halves apart. gate and up:
// equal type, shape; silu(v) = v / (1 + exp(-v)).
absl::Status SmallMatmulSwiGlu(const WeightTiles& gate, const WeightTiles& up, const MatmulInput& x,
                               __half* out, int64_t ldo, StreamView stream);

// The norm that follows a product with the residual stream.
struct NextNorm {
  DeferredNorm before;             // of the residual stream as it was, for the scale
  const float* weight = nullptr;   // [w.rows]
  __half* out = nullptr;           // [n, ldo]: the halves
  int64_t ldo = 0;
  DeferredNorm after;              // sums and prescale are written, `parts` is set by the call
};

// Whether SmallMatmulThenNorm takes this shape.
bool NormFits(const WeightTiles& w, int n);

// SmallMatmul with `accumulate`, and the deferred norm of y. `before` and `after` do not overlap.
absl::Status SmallMatmulThenNorm(const WeightTiles& w, const MatmulInput& x, const float* bias,
                                 float* y, int64_t ldy, NextNorm& next, StreamView stream);

// The same three of one activation row, to be launched by RunMatvecs; w's type is the op's.
MatvecOp MatvecOf(const WeightTiles& w, const MatmulInput& x, const float* bias, bool accumulate,
                  float* y);
MatvecOp MatvecSwiGluOf(const WeightTiles& gate, const WeightTiles& up, const MatmulInput& x,
                        __half* out);
MatvecOp MatvecThenNormOf(const WeightTiles& w, const MatmulInput& x, const float* bias, float* y,
                          NextNorm& next);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATMUL_CUDA_H_
