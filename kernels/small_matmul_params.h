// What the decode kernels (matmul_cuda.cuh, matvec_cuda.cuh) are told.
#ifndef MILLRACE_KERNELS_SMALL_MATMUL_PARAMS_H_
#define MILLRACE_KERNELS_SMALL_MATMUL_PARAMS_H_

#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/deferred_norm_cuda.h"

namespace millrace::cuda {

struct SmallMatmulParams {
  const uint8_t* w = nullptr;
  const uint8_t* up = nullptr;  // SwiGLU: the second matrix
  int strips = 0;
  int rows = 0, cols = 0;
  int tiles_per_strip = 0;
  const __half* x = nullptr;
  int64_t ldx = 0;
  int n = 0;
  int stages = 0;  // of the ring: what this device's shared memory holds, at most kStages
  bool leads = false, follows = false;
  float multiplier = 1, up_multiplier = 1;
  const float* bias = nullptr;
  bool accumulate = false;
  float* y = nullptr;
  __half* out = nullptr;
  int64_t ldy = 0;
  // Of x, or with `next_weight` of y before this product. sums null: none.
  DeferredNorm norm;
  // The norm of y after this product.
  const float* next_weight = nullptr;
  __half* normed = nullptr;
  int64_t ld_normed = 0;
  float *next_sums = nullptr, *next_prescale = nullptr;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_SMALL_MATMUL_PARAMS_H_
