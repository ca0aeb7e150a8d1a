// Prefill attention: writing results, the kernel, and its launch. How it works:
// kernels/attention_prefill.cuh.
#include "kernels/attention_prefill.cuh"

namespace millrace::cuda {
namespace prefill {
namespace {

// Writes a warp's rows by way of its own rows of Q's place, to store whole chunks.
template <class S>
__device__ __forceinline__ void WriteOut(const Args& a, const Running<S>& run, uint4* room) {
  const Rows rows = RowsOf<S>(a);  // read again rather than held all along
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int first = threadIdx.x / 32 * S::kWarpRows;
  char* const bytes = reinterpret_cast<char*>(room);
  __syncwarp();
#pragma unroll
  for (int m = 0; m < S::kGroups; ++m) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float inverse = 1.0f / run.sum[m][j];
      const int row = first + 16 * m + g + 8 * j;
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n) {
        const float* x = &run.mixed[m][n][2 * j];
        *reinterpret_cast<__half2*>(bytes + ChunkOffset<S::kDim>(row, n) + 4 * t) =
            __halves2half2(SaturatedHalf(x[0] * inverse), SaturatedHalf(x[1] * inverse));
      }
    }
  }
  __syncwarp();
  const int head_dim = S::HeadDim(a);
#pragma unroll 4
  for (int i = lane; i < S::kWarpRows * S::kChunks; i += 32) {
    const int row = first + i / S::kChunks, chunk = i % S::kChunks;
    if (row >= rows.count || 8 * chunk >= head_dim) continue;
    *reinterpret_cast<uint4*>(a.out + ((rows.row + row) * a.heads + blockIdx.x) * head_dim +
                              8 * chunk) =
        *reinterpret_cast<const uint4*>(bytes + ChunkOffset<S::kDim>(row, chunk));
  }
}

template <class S, DType kType>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(Args a) {
  extern __shared__ __align__(1024) uint4 arena[];
  uint4* const q = arena;
  uint4* const k = q + S::kQueryBytes / 16;
  uint4* const v = k + S::kKeyBytes / 16;
  WaitForPrevious();
  LetNextStart();
  const Rows rows = RowsOf<S>(a);
  if (rows.count <= 0) return;
  const int end = rows.position + rows.count;
  const int64_t cell =
      static_cast<int64_t>(rows.slot) * a.kv_heads + blockIdx.x / (a.heads / a.kv_heads);
  const int head_dim = S::HeadDim(a);
  const int64_t offset = cell * a.context * KvRowBytes(kType, head_dim);
  const int warp_row = threadIdx.x / 32 * S::kWarpRows, warp_position = rows.position + warp_row;
  // A warp without rows has no last position.
  const int warp_last = warp_row < rows.count ? min(warp_position + S::kWarpRows, end) - 1 : -1;
  Running<S> run;
  int first = (end - 1) / S::kKeys * S::kKeys;
  CopyQueries<S>(a, rows, SharedAddress(q));
  CopyCells<S, kType, false>(a.k + offset, head_dim, first, end, k);
  for (; first >= 0; first -= S::kKeys) {
    Scores<S> s;
    CopiesDone();
    __syncthreads();  // K is there; nobody reads V any more
    CopyCells<S, kType, false>(a.v + offset, head_dim, first, end, v);
    if (first <= warp_last) Score<S>(SharedAddress(q), SharedAddress(k), s);
    CopiesDone();
    __syncthreads();  // V is there; nobody reads K any more
    if (first > 0) CopyCells<S, kType, true>(a.k + offset, head_dim, first - S::kKeys, end, k);
    if (first <= warp_last) {
      if (first + S::kKeys - 1 > warp_position) Mask<S>(first, warp_position, s);
      run.Weigh(a.scale, s);
      Mix<S>(s, SharedAddress(v), run);
    }
  }
  if (warp_last < 0) return;
  run.Finish();
  WriteOut<S>(a, run, q);
}

template <class S>
auto KernelFor(DType dtype) -> void (*)(Args) {
  switch (dtype) {
    case DType::kF32:
      return PrefillKernel<S, DType::kF32>;
    case DType::kF16:
      return PrefillKernel<S, DType::kF16>;
    case DType::kBF16:
      return PrefillKernel<S, DType::kBF16>;
    case DType::kQ8_0:
      return PrefillKernel<S, DType::kQ8_0>;
    default:
      return nullptr;
  }
}

template <class S>
absl::Status Start(const Args& a, DType dtype, int tile_count, StreamView stream) {
  const auto kernel = KernelFor<S>(dtype);
  MILLRACE_CHECK(kernel != nullptr && tile_count <= 65535 / S::kBlocks);
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     S::kSharedBytes));
  const dim3 grid(static_cast<unsigned>(a.heads), static_cast<unsigned>(tile_count * S::kBlocks));
  return Launch(kernel, grid, dim3(kThreads), S::kSharedBytes, stream, a);
}

}  // namespace
}  // namespace prefill

absl::Status AttentionPrefill(const __half* q, int heads, const KvView& cache,
                              const AttentionTile* tiles, int tile_count, float scale, __half* out,
                              StreamView stream) {
  const int d = cache.head_dim;
  MILLRACE_CHECK(d > 0 && d <= 256 && d % (cache.dtype == DType::kQ8_0 ? 32 : 8) == 0 && scale > 0);
  MILLRACE_CHECK(cache.kv_heads > 0 && heads > 0 && heads % cache.kv_heads == 0 && tile_count >= 0);
  if (tile_count == 0) return absl::OkStatus();
  prefill::Args a = {};
  a.q = q;
  a.out = out;
  a.k = static_cast<const uint8_t*>(cache.k);
  a.v = static_cast<const uint8_t*>(cache.v);
  a.tiles = tiles;
  a.heads = heads;
  a.kv_heads = cache.kv_heads;
  a.head_dim = d;
  a.context = cache.context;
  a.scale = scale * 1.44269504f;
  switch (d) {
    case 64:
      return prefill::Start<prefill::Shape<64, true>>(a, cache.dtype, tile_count, stream);
    case 96:
      return prefill::Start<prefill::Shape<96, true>>(a, cache.dtype, tile_count, stream);
    case 128:
      return prefill::Start<prefill::Shape<128, true>>(a, cache.dtype, tile_count, stream);
    case 256:
      return prefill::Start<prefill::Shape<256, true>>(a, cache.dtype, tile_count, stream);
    default:
      break;
  }
  if (d <= 128)
    return prefill::Start<prefill::Shape<128, false>>(a, cache.dtype, tile_count, stream);
  return prefill::Start<prefill::Shape<256, false>>(a, cache.dtype, tile_count, stream);
}

}  // namespace millrace::cuda
