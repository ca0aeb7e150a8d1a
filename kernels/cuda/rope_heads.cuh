// What one warp does to one head of a new row: norm, rotation, and storing it in the cache's type.
// The head lies in shared memory as f32; between two of these calls the caller has __syncwarp.
#ifndef MILLRACE_KERNELS_CUDA_ROPE_HEADS_CUH_
#define MILLRACE_KERNELS_CUDA_ROPE_HEADS_CUH_

#include <cuda_bf16.h>

#include "kernels/cuda/kv_cells.cuh"
#include "kernels/rope_cuda.h"

namespace millrace::cuda {

// head *= weight / rms(head). One warp; lane l owns elements l, l + 32, ...
__device__ __forceinline__ void NormHead(float* head, int head_dim, const float* weight, float epsilon) {
  const int lane = threadIdx.x % 32;
  float squares = 0;
  for (int d = lane; d < head_dim; d += 32) squares += head[d] * head[d];
  for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(~0u, squares, step);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(head_dim) + epsilon);
  for (int d = lane; d < head_dim; d += 32) head[d] = head[d] * scale * weight[d];
}

// One warp; each pair belongs to one lane. Products and sums are rounded one by one, as on the CPU.
__device__ __forceinline__ void RotateHead(float* head, int dims, RopeStyle style, const float* table) {
  for (int i = threadIdx.x % 32; i < dims / 2; i += 32) {
    const bool adjacent = style == RopeStyle::kInterleaved;
    const int ia = adjacent ? 2 * i : i, ib = adjacent ? 2 * i + 1 : i + dims / 2;
    const float c = table[2 * i], s = table[2 * i + 1];
    const float a = head[ia], b = head[ib];
    head[ia] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    head[ib] = __fadd_rn(__fmul_rn(a, s), __fmul_rn(b, c));
  }
}

__device__ __forceinline__ void StoreQ8(const float* head, int head_dim, uint8_t* cell) {
  const int lane = threadIdx.x % 32;
  for (int b = 0; b < head_dim; b += 32, cell += 34) {
    const float x = head[b + lane];
    float peak = fabsf(x);
    for (int step = 16; step > 0; step /= 2) {
      peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, step));
    }
    const float inverse = peak > 0 ? __fdiv_rn(127.0f, peak) : 0.0f;
    const float scaled = fminf(fmaxf(__fmul_rn(x, inverse), -127.0f), 127.0f);
    if (lane == 0) *reinterpret_cast<__half*>(cell) = __float2half_rn(__fdiv_rn(peak, 127.0f));
    cell[2 + lane] = static_cast<uint8_t>(static_cast<int8_t>(__float2int_rn(scaled)));
  }
}

// Converts one row of a head to the cache's type. One warp.
__device__ __forceinline__ void StoreCell(const float* head, int head_dim, DType dtype, uint8_t* cell) {
  if (dtype == DType::kQ8_0) return StoreQ8(head, head_dim, cell);
  for (int d = threadIdx.x % 32; d < head_dim; d += 32) {
    if (dtype == DType::kF32) {
      reinterpret_cast<float*>(cell)[d] = head[d];
    } else if (dtype == DType::kF16) {
      reinterpret_cast<__half*>(cell)[d] = __float2half_rn(head[d]);
    } else {
      reinterpret_cast<__nv_bfloat16*>(cell)[d] = __float2bfloat16_rn(head[d]);
    }
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ROPE_HEADS_CUH_
