#include <cuda_bf16.h>

#include "kernels/cuda/kv_cells.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/rope_cuda.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxHeadDim = 256;

__global__ void __launch_bounds__(kThreads)
    RopeTableKernel(PassRows rows, const double* frequencies, int pairs, float* table) {
  WaitForPrevious();
  LetNextStart();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(rows.n) * pairs) return;
  double sine, cosine;
  sincos(rows.position[i / pairs] * frequencies[i % pairs], &sine, &cosine);
  table[2 * i] = static_cast<float>(cosine);
  table[2 * i + 1] = static_cast<float>(sine);
}

// head *= weight / rms(head). One warp; lane l owns elements l, l + 32, ...
__device__ void NormHead(float* head, int head_dim, const float* weight, float epsilon) {
  const int lane = threadIdx.x % 32;
  float squares = 0;
  for (int d = lane; d < head_dim; d += 32) squares += head[d] * head[d];
  for (int step = 16; step > 0; step /= 2) squares += __shfl_xor_sync(~0u, squares, step);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(head_dim) + epsilon);
  for (int d = lane; d < head_dim; d += 32) head[d] = head[d] * scale * weight[d];
}

// One warp; each pair belongs to one lane. Products and sums are rounded one by one, as on the CPU.
__device__ void RotateHead(float* head, int dims, RopeStyle style, const float* table) {
  for (int i = threadIdx.x % 32; i < dims / 2; i += 32) {
    const bool adjacent = style == RopeStyle::kInterleaved;
    const int ia = adjacent ? 2 * i : i, ib = adjacent ? 2 * i + 1 : i + dims / 2;
    const float c = table[2 * i], s = table[2 * i + 1];
    const float a = head[ia], b = head[ib];
    head[ia] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    head[ib] = __fadd_rn(__fmul_rn(a, s), __fmul_rn(b, c));
  }
}

__device__ void StoreQ8(const float* head, int head_dim, uint8_t* cell) {
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
__device__ void StoreCell(const float* head, int head_dim, DType dtype, uint8_t* cell) {
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

// A warp takes one head of one row: queries first, then keys, then values.
__global__ void __launch_bounds__(kThreads)
    RopeAppendKernel(RopeAppendArgs args, PassRows rows, __half* q, KvView cache) {
  __shared__ float staged[kWarps][kMaxHeadDim];
  WaitForPrevious();
  LetNextStart();
  const int row = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int unit = blockIdx.y * kWarps + warp, head_dim = cache.head_dim;
  const int position = rows.position[row];
  if (unit >= args.heads + 2 * cache.kv_heads || position < 0) return;
  float* head = staged[warp];
  const float* from = args.qkv + row * args.stride + static_cast<int64_t>(unit) * head_dim;
  for (int d = lane; d < head_dim; d += 32) head[d] = from[d];
  __syncwarp();
  const bool is_q = unit < args.heads, is_v = unit >= args.heads + cache.kv_heads;
  if (!is_v) {
    const float* weight = is_q ? args.q_norm : args.k_norm;
    if (weight != nullptr) NormHead(head, head_dim, weight, args.epsilon);
    __syncwarp();
    RotateHead(head, args.dims, args.style, args.table + static_cast<int64_t>(row) * args.dims);
    __syncwarp();
  }
  if (is_q) {
    __half* to = q + (static_cast<int64_t>(row) * args.heads + unit) * head_dim;
    for (int d = 2 * lane; d < head_dim; d += 64) {
      *reinterpret_cast<__half2*>(to + d) =
          __halves2half2(SaturatedHalf(head[d]), SaturatedHalf(head[d + 1]));
    }
    return;
  }
  const int kv_head = unit - args.heads - (is_v ? cache.kv_heads : 0);
  const int64_t cell =
      (static_cast<int64_t>(rows.slot[row]) * cache.kv_heads + kv_head) * cache.context + position;
  StoreCell(
      head, head_dim, cache.dtype,
      static_cast<uint8_t*>(is_v ? cache.v : cache.k) + cell * KvRowBytes(cache.dtype, head_dim));
}

bool IsCacheType(DType t) {
  return t == DType::kF32 || t == DType::kF16 || t == DType::kBF16 || t == DType::kQ8_0;
}

}  // namespace

absl::Status RopeTable(const PassRows& rows, const double* frequencies, int pairs, float* table,
                       StreamView stream) {
  MILLRACE_CHECK(rows.n >= 0 && pairs >= 0);
  const int64_t count = static_cast<int64_t>(rows.n) * pairs;
  if (count == 0) return absl::OkStatus();
  const unsigned blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  return Launch(RopeTableKernel, dim3(blocks), dim3(kThreads), 0, stream, rows, frequencies, pairs,
                table);
}

absl::Status RopeAppend(const RopeAppendArgs& args, const PassRows& rows, __half* q,
                        const KvView& cache, StreamView stream) {
  MILLRACE_CHECK(IsCacheType(cache.dtype) && cache.head_dim > 0 && cache.head_dim % 8 == 0 &&
                 cache.head_dim <= kMaxHeadDim);
  MILLRACE_CHECK(cache.dtype != DType::kQ8_0 || cache.head_dim % 32 == 0);
  MILLRACE_CHECK(args.dims >= 0 && args.dims % 2 == 0 && args.dims <= cache.head_dim);
  const int units = args.heads + 2 * cache.kv_heads;
  MILLRACE_CHECK(args.stride >= static_cast<int64_t>(units) * cache.head_dim);
  if (rows.n == 0) return absl::OkStatus();
  const dim3 grid(static_cast<unsigned>(rows.n),
                  static_cast<unsigned>((units + kWarps - 1) / kWarps));
  return Launch(RopeAppendKernel, grid, dim3(kThreads), 0, stream, args, rows, q, cache);
}

}  // namespace millrace::cuda
