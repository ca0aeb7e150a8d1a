#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rope_heads.cuh"
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
