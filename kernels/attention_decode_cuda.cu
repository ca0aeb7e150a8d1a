// Decode attention: joining the warps and the parts of a row, the kernel, and its launch. How it
// works: kernels/attention_decode.cuh.
#include "kernels/attention_decode.cuh"
#include "kernels/cuda/cluster.cuh"
#include "proto/status_macros.h"

namespace millrace::cuda {
namespace decode {
namespace {

template <int kDim>
struct Shared {
  float mixed[kWarps][kHeads][kDim];
  float peak[kWarps][kHeads], sum[kWarps][kHeads];
  bool last;
  // The block's part, where the other blocks of its cluster read it.
  alignas(16) float part[kHeads][kDim];
  alignas(16) float2 part_peak[kHeads];  // peak, sum of the weights
};

enum class JoinTo { kResult, kCluster, kWorkspace };

// Later the weight of each part in each head's result.
using PartWeights = float[kHeads][kMaxDecodeSplits];

template <int kDim>
__device__ __forceinline__ void Publish(const Running<kDim>& run, Shared<kDim>& shared) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float* to = shared.mixed[warp][2 * t + j];
#pragma unroll
    for (int m = 0; m < kDim / 16; ++m) {
      const int dim = m / 4 * 64 + 8 * g + m % 4 * 2;
      *reinterpret_cast<float2*>(to + dim) = make_float2(run.mixed[m][j], run.mixed[m][j + 2]);
    }
    if (g == 0) {
      shared.peak[warp][2 * t + j] = run.peak[j];
      shared.sum[warp][2 * t + j] = run.sum[j];
    }
  }
}

// Joins the warps.
template <int kDim>
__device__ __forceinline__ void JoinWarps(const Args& a, const Heads& heads, JoinTo to,
                                          Shared<kDim>& shared) {
  const int pairs = a.head_dim / 2;
  for (int i = threadIdx.x; i < heads.count * pairs; i += kThreads) {
    const int h = i / pairs, dim = i % pairs * 2;
    float peak = shared.peak[0][h];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) peak = fmaxf(peak, shared.peak[w][h]);
    const float base = peak == -INFINITY ? 0.0f : peak;
    float sum = 0, x = 0, y = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = Exp2(shared.peak[w][h] - base);
      sum += weight * shared.sum[w][h];
      x += weight * shared.mixed[w][h][dim];
      y += weight * shared.mixed[w][h][dim + 1];
    }
    const int64_t head = static_cast<int64_t>(blockIdx.z) * a.heads + heads.first + h;
    if (to == JoinTo::kResult) {
      *reinterpret_cast<__half2*>(a.out + head * a.head_dim + dim) =
          __halves2half2(SaturatedHalf(x / sum), SaturatedHalf(y / sum));
    } else if (to == JoinTo::kCluster) {
      *reinterpret_cast<float2*>(&shared.part[h][dim]) = make_float2(x, y);
      if (dim == 0) shared.part_peak[h] = make_float2(peak, sum);
    } else {
      const int64_t part = head * a.splits + blockIdx.x;
      *reinterpret_cast<float2*>(a.mixed + part * a.head_dim + dim) = make_float2(x, y);
      if (dim == 0) a.peaks[part] = make_float2(peak, sum);
    }
  }
}

// Joins the parts of a row through the shared memory of its cluster, each block some of the results.
template <int kDim>
__device__ __forceinline__ void JoinCluster(const Args& a, const Heads& heads, int used,
                                            const Shared<kDim>& shared) {
  const int quads = a.head_dim / 4;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < heads.count * quads; i += used * kThreads) {
    const int h = i / quads, dim = i % quads * 4;
    float2 peaks[kClusterParts];
    float4 parts[kClusterParts];
#pragma unroll
    for (int p = 0; p < kClusterParts; ++p) {
      if (p >= used) break;
      peaks[p] = LoadFloat2(InBlock(&shared.part_peak[h], p));
      parts[p] = LoadFloat4(InBlock(&shared.part[h][dim], p));
    }
    float top = -INFINITY;
#pragma unroll
    for (int p = 0; p < kClusterParts; ++p) {
      if (p < used) top = fmaxf(top, peaks[p].x);
    }
    const float base = top == -INFINITY ? 0.0f : top;
    float4 mixed = {};
    float sum = 0;
#pragma unroll
    for (int p = 0; p < kClusterParts; ++p) {
      if (p >= used) break;
      const float weight = Exp2(peaks[p].x - base);
      sum += weight * peaks[p].y;
      mixed.x += weight * parts[p].x;
      mixed.y += weight * parts[p].y;
      mixed.z += weight * parts[p].z;
      mixed.w += weight * parts[p].w;
    }
    const int64_t head = static_cast<int64_t>(blockIdx.z) * a.heads + heads.first + h;
    __half2* to = reinterpret_cast<__half2*>(a.out + head * a.head_dim + dim);
    to[0] = __halves2half2(SaturatedHalf(mixed.x / sum), SaturatedHalf(mixed.y / sum));
    to[1] = __halves2half2(SaturatedHalf(mixed.z / sum), SaturatedHalf(mixed.w / sum));
  }
}

// weights[h][p] = part p's share of head h: what its sums are to be multiplied by.
__device__ __forceinline__ void WeighParts(const Args& a, const Heads& heads, int used,
                                           PartWeights& weights) {
  const int lane = threadIdx.x % 32;
  for (int h = threadIdx.x / 32; h < heads.count; h += kWarps) {
    const int64_t head = static_cast<int64_t>(blockIdx.z) * a.heads + heads.first + h;
    const float2* peaks = a.peaks + head * a.splits;
    float top = -INFINITY;
    for (int p = lane; p < used; p += 32) top = fmaxf(top, __ldcg(&peaks[p]).x);
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(kAll, top, step));
    const float base = top == -INFINITY ? 0.0f : top;
    float sum = 0;
    for (int p = lane; p < used; p += 32) {
      const float2 part = __ldcg(&peaks[p]);
      weights[h][p] = Exp2(part.x - base);
      sum += weights[h][p] * part.y;
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAll, sum, step);
    for (int p = lane; p < used; p += 32) weights[h][p] /= sum;
  }
}

// Joins the parts of a row, in their order, whichever block does it.
__device__ __forceinline__ void JoinParts(const Args& a, const Heads& heads, int used,
                                          const PartWeights& weights) {
  const int quads = a.head_dim / 4;
  for (int i = threadIdx.x; i < heads.count * quads; i += kThreads) {
    const int h = i / quads, dim = i % quads * 4;
    const int64_t head = static_cast<int64_t>(blockIdx.z) * a.heads + heads.first + h;
    const float* from = a.mixed + head * a.splits * a.head_dim + dim;
    float4 sum = {};
#pragma unroll 8
    for (int p = 0; p < used; ++p) {
      const float4 x = __ldcg(reinterpret_cast<const float4*>(from + p * a.head_dim));
      const float weight = weights[h][p];
      sum.x += weight * x.x;
      sum.y += weight * x.y;
      sum.z += weight * x.z;
      sum.w += weight * x.w;
    }
    __half2* to = reinterpret_cast<__half2*>(a.out + head * a.head_dim + dim);
    to[0] = __halves2half2(SaturatedHalf(sum.x), SaturatedHalf(sum.y));
    to[1] = __halves2half2(SaturatedHalf(sum.z), SaturatedHalf(sum.w));
  }
}

// True in every thread of the last of the row's `used` blocks to come here; sees what the others
// wrote before. Leaves the counter at zero.
template <int kDim>
__device__ __forceinline__ bool IsLast(uint32_t* counter, int used, Shared<kDim>& shared) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const uint32_t most = static_cast<uint32_t>(used) - 1;
    shared.last = atomicInc(counter, most) == most;
  }
  __syncthreads();
  if (shared.last) __threadfence();
  return shared.last;
}

template <DType kType, int kDim>
__global__ void __launch_bounds__(kThreads, kDim > 128 ? 2 : 3) DecodeKernel(Args a) {
  __shared__ __align__(16) Shared<kDim> shared;
  __shared__ __align__(16) __half query_room[kHeads * Query<kDim>::kStride];
  static_assert(sizeof(PartWeights) <= sizeof(shared.mixed));
  static_assert((kHeads + 2) * kDim <= kWarps * kHeads * kDim);
  LetNextStart();
  // Rows and positions were there before the pass's first kernel began.
  const int row = blockIdx.z, positions = a.rows.position[row] + 1;
  const int blocks = (positions + kBlock - 1) / kBlock,
            per_part = max(1, (blocks + a.splits - 1) / a.splits);
  const int used = (blocks + per_part - 1) / per_part, part = blockIdx.x;
  const Heads heads = HeadsOf(a);
  const int64_t cell =
      (static_cast<int64_t>(a.rows.slot[row]) * a.kv_heads + heads.kv_head) * a.context;
  const int first = part * per_part * kBlock, end = min(positions, first + per_part * kBlock);
  if (positions > 0 && part < used) {
    const int64_t row_bytes = KvRowBytes(kType, a.head_dim);
    PrefetchToL2(a.k + (cell + first) * row_bytes, (end - first) * row_bytes);
    PrefetchToL2(a.v + (cell + first) * row_bytes, (end - first) * row_bytes);
  }
  if (threadIdx.x == 0) WaitForPrevious();
  __syncthreads();
  if (positions <= 0 || part >= used) return;
  const bool make = a.rope.qkv != nullptr;
  if (make) {
    MakeRows<kType, kDim>(a, heads, positions - 1, part == used - 1, &shared.mixed[0][0][0],
                          query_room);
  }
  Query<kDim> query;
  query.Load(a, heads, make, query_room);
  Running<kDim> run;
  Attend<kType, kDim>(a, query, cell * KvRowBytes(kType, a.head_dim), first, end, run);
  Publish(run, shared);
  __syncthreads();
  JoinWarps(a, heads,
            used == 1     ? JoinTo::kResult
            : a.clustered ? JoinTo::kCluster
                          : JoinTo::kWorkspace,
            shared);
  if (used == 1) return;
  if (a.clustered) {
    ClusterBarrier();
    JoinCluster(a, heads, used, shared);
    ClusterBarrier();  // nobody leaves while others read
    return;
  }
  if (!IsLast(a.counters + static_cast<int64_t>(row) * gridDim.y + blockIdx.y, used, shared))
    return;
  PartWeights& weights = *reinterpret_cast<PartWeights*>(&shared.mixed);
  WeighParts(a, heads, used, weights);
  __syncthreads();
  JoinParts(a, heads, used, weights);
}

template <DType kType>
auto KernelFor(int head_dim) -> void (*)(Args) {
  if (head_dim <= 64) return DecodeKernel<kType, 64>;
  if (head_dim <= 128) return DecodeKernel<kType, 128>;
  return DecodeKernel<kType, 256>;
}

auto KernelFor(DType dtype, int head_dim) -> void (*)(Args) {
  switch (dtype) {
    case DType::kF32:
      return KernelFor<DType::kF32>(head_dim);
    case DType::kF16:
      return KernelFor<DType::kF16>(head_dim);
    case DType::kBF16:
      return KernelFor<DType::kBF16>(head_dim);
    case DType::kQ8_0:
      return KernelFor<DType::kQ8_0>(head_dim);
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace decode

namespace {

absl::StatusOr<bool> HasClusters() {
  int device = 0, major = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major >= 9;
}

absl::Status LaunchDecode(decode::Args a, const KvView& cache, const PassRows& rows, int splits,
                          const DecodeWorkspace& workspace, StreamView stream) {
  const auto kernel = decode::KernelFor(cache.dtype, cache.head_dim);
  const int heads = a.heads;
  MILLRACE_CHECK(kernel != nullptr && cache.head_dim > 0 && cache.head_dim <= 256);
  MILLRACE_CHECK(cache.head_dim % (cache.dtype == DType::kQ8_0 ? 32 : 8) == 0 && a.scale > 0);
  MILLRACE_CHECK(cache.kv_heads > 0 && heads > 0 && heads % cache.kv_heads == 0);
  MILLRACE_CHECK(splits >= 1 && splits <= kMaxDecodeSplits && rows.n >= 0 && rows.n <= 65535);
  if (rows.n == 0) return absl::OkStatus();
  const int group = heads / cache.kv_heads, tiles = (group + decode::kHeads - 1) / decode::kHeads;
  const int64_t parts = static_cast<int64_t>(rows.n) * heads * splits;
  a.k = static_cast<const uint8_t*>(cache.k);
  a.v = static_cast<const uint8_t*>(cache.v);
  a.rows = rows;
  a.mixed = workspace.partials;
  a.peaks = reinterpret_cast<float2*>(workspace.partials + parts * cache.head_dim);
  a.counters = workspace.counters;
  a.kv_heads = cache.kv_heads;
  a.head_dim = cache.head_dim;
  a.context = cache.context;
  a.splits = splits;
  MILLRACE_ASSIGN_OR_RETURN(a.clustered, HasClusters());
  a.clustered = a.clustered && splits > 1 && splits <= kClusterParts;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(splits), static_cast<unsigned>(cache.kv_heads * tiles),
                    static_cast<unsigned>(rows.n));
  shape.block = dim3(decode::kThreads);
  shape.cluster = a.clustered ? static_cast<unsigned>(splits) : 1;
  MILLRACE_RETURN_IF_ERROR(PreferSharedMemory(kernel));
  return Launch(kernel, shape, stream, a);
}

constexpr float kLog2E = 1.44269504f;

}  // namespace

absl::Status AttentionDecode(const __half* q, int heads, const KvView& cache, const PassRows& rows,
                             float scale, int splits, const DecodeWorkspace& workspace, __half* out,
                             StreamView stream) {
  decode::Args a = {};
  a.q = q;
  a.out = out;
  a.heads = heads;
  a.scale = scale * kLog2E;
  return LaunchDecode(a, cache, rows, splits, workspace, stream);
}

absl::Status RopeAttentionDecode(const RopeAppendArgs& rope, const KvView& cache,
                                 const PassRows& rows, float scale, int splits,
                                 const DecodeWorkspace& workspace, __half* out, StreamView stream) {
  MILLRACE_CHECK(rope.dims >= 0 && rope.dims % 2 == 0 && rope.dims <= cache.head_dim);
  decode::Args a = {};
  a.rope = rope;
  a.out = out;
  a.heads = rope.heads;
  a.scale = scale * kLog2E;
  return LaunchDecode(a, cache, rows, splits, workspace, stream);
}

}  // namespace millrace::cuda
