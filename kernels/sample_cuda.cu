#include <cfloat>

#include "kernels/cuda/launch.cuh"
#include "kernels/sample_cuda.h"
#include "kernels/sort_cuda.cuh"

namespace millrace::cuda {
namespace {

// One block looks at one chunk of one row.
constexpr int kChunkThreads = 512;
constexpr int kChunkWarps = kChunkThreads / 32;
constexpr int kChunk = kChunkThreads * kLaneKeys;
// One block merges the chunks of one row.
constexpr int kMergeThreads = 1024;
constexpr int kMergeWarps = kMergeThreads / 32;
static_assert(kListKeys == kMaxCandidates, "a list is what a row may ask for");

// What a chunk leaves besides its list.
struct Partial {
  SortKey best;  // after the penalty
  double sum;    // of exp(logit - peak)
  float peak;    // the largest unmodified logit, -FLT_MAX at least
};

struct Work {
  const float* logits;
  int32_t vocab;
  int32_t chunks;
  const SampleRequest* requests;
  const int32_t* recent;
  SortKey* lists;     // [rows, chunks, kListKeys], of rows that want their top k
  Partial* partials;  // [rows, chunks]
  SampleResult* results;
};

// The reduction over the block, in the same order every time. `of_warp` is used by no other call.
template <int kWarps, typename T, typename Op>
__device__ __forceinline__ T BlockReduce(T value, Op op, T* of_warp) {
  for (int step = 16; step > 0; step /= 2)
    value = op(value, __shfl_xor_sync(kAllLanes, value, step));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  T all = of_warp[0];
  for (int w = 1; w < kWarps; ++w) all = op(all, of_warp[w]);
  return all;
}

struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};

// Bit i of `seen`: token first + i is a recent one.
__device__ __forceinline__ void MarkRecent(const Work& work, const SampleRequest& request,
                                           int32_t first, uint32_t (&seen)[kChunk / 32]) {
  for (int i = threadIdx.x; i < kChunk / 32; i += kChunkThreads) seen[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < request.recent_count; i += kChunkThreads) {
    const uint32_t token = static_cast<uint32_t>(work.recent[request.recent_begin + i]);
    const uint32_t at = token - static_cast<uint32_t>(first);  // wraps below `first`
    if (at < kChunk) atomicOr(&seen[at / 32], 1u << (at % 32));
  }
  __syncthreads();
}

__device__ __forceinline__ float Penalised(float logit, float penalty) {
  return logit > 0 ? __fdiv_rn(logit, penalty) : __fmul_rn(logit, penalty);
}

__device__ __forceinline__ void WritePartial(const float (&logits)[kLaneKeys],
                                             const SortKey (&keys)[kLaneKeys], Partial* to) {
  __shared__ float peaks[kChunkWarps];
  __shared__ double sums[kChunkWarps];
  __shared__ SortKey bests[kChunkWarps];
  float peak = -FLT_MAX;  // not -infinity: differences from it are numbers
  SortKey best = 0;
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    peak = Larger()(peak, logits[i]);
    best = Larger()(best, keys[i]);
  }
  peak = BlockReduce<kChunkWarps>(peak, Larger(), peaks);
  best = BlockReduce<kChunkWarps>(best, Larger(), bests);
  float few = 0;
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) few += expf(logits[i] - peak);
  const double sum = BlockReduce<kChunkWarps>(static_cast<double>(few), Plus(), sums);
  if (threadIdx.x == 0) *to = {best, sum, peak};
}

__global__ void __launch_bounds__(kChunkThreads) ChunkKernel(Work work) {
  __shared__ uint32_t seen[kChunk / 32];
  LetNextStart();
  WaitForPrevious();
  const SampleRequest request = work.requests[blockIdx.y];
  const float* row = work.logits + static_cast<int64_t>(blockIdx.y) * work.vocab;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kChunk;
  const int64_t part = static_cast<int64_t>(blockIdx.y) * work.chunks + blockIdx.x;
  float logits[kLaneKeys];
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const int32_t token = first + i * kChunkThreads + static_cast<int32_t>(threadIdx.x);
    logits[i] = token < work.vocab ? row[token] : -INFINITY;
  }
  const bool penalise =
      request.mode != SampleMode::kNone && request.recent_count > 0 && request.penalty != 1.0f;
  if (penalise) MarkRecent(work, request, first, seen);
  SortKey keys[kLaneKeys];
#pragma unroll
  for (int i = 0; i < kLaneKeys; ++i) {
    const int32_t at = i * kChunkThreads + static_cast<int32_t>(threadIdx.x);
    const bool recent = penalise && (seen[at / 32] >> (at % 32) & 1) != 0;
    const float logit = recent ? Penalised(logits[i], request.penalty) : logits[i];
    keys[i] = first + at < work.vocab ? MakeKey(logit, first + at) : 0;
  }
  WritePartial(logits, keys, work.partials + part);
  if (request.mode != SampleMode::kTopK) return;
  WarpSort(keys);
  BlockMerge<kChunkWarps>(keys);
  if (threadIdx.x < 32) StoreList(keys, work.lists + part * kListKeys);
}

__device__ __forceinline__ Candidate CandidateOf(SortKey key, const float* row) {
  Candidate candidate;
  candidate.token = TokenOf(key);
  candidate.logit = LogitOf(key);
  candidate.unmodified = row[candidate.token];
  return candidate;
}

// The warp writes all of the result but the candidates of kTopK.
__device__ __forceinline__ void WriteSums(const Work& work, const SampleRequest& request,
                                          const Partial* partials, const float* row, int32_t k,
                                          SampleResult* result) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float peak = -FLT_MAX;
  SortKey best = 0;
  for (int c = lane; c < work.chunks; c += 32) {
    peak = Larger()(peak, partials[c].peak);
    best = Larger()(best, partials[c].best);
  }
  for (int step = 16; step > 0; step /= 2) {
    peak = Larger()(peak, __shfl_xor_sync(kAllLanes, peak, step));
    best = Larger()(best, __shfl_xor_sync(kAllLanes, best, step));
  }
  double sum = 0;
  for (int c = lane; c < work.chunks; c += 32) {
    sum += partials[c].sum * exp(static_cast<double>(partials[c].peak) - static_cast<double>(peak));
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (lane != 0) return;
  result->log_sum_exp = static_cast<double>(peak) + log(sum);
  const bool has_target = request.target >= 0 && request.target < work.vocab;
  result->target_logit = has_target ? row[request.target] : 0.0f;
  result->count = k;
  if (request.mode == SampleMode::kGreedy) result->best[0] = CandidateOf(best, row);
}

__global__ void __launch_bounds__(kMergeThreads) MergeKernel(Work work) {
  LetNextStart();
  WaitForPrevious();
  const SampleRequest request = work.requests[blockIdx.x];
  const int64_t part = static_cast<int64_t>(blockIdx.x) * work.chunks;
  const float* row = work.logits + static_cast<int64_t>(blockIdx.x) * work.vocab;
  SampleResult* result = work.results + blockIdx.x;
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  int32_t k = request.mode == SampleMode::kGreedy ? 1 : 0;
  if (request.mode == SampleMode::kTopK) {
    k = min(min(max(request.k, 1), kMaxCandidates), work.vocab);
    SortKey keys[kLaneKeys] = {};
    for (int c = warp; c < work.chunks; c += kMergeWarps) {
      MergeList(keys, work.lists + (part + c) * kListKeys);
    }
    BlockMerge<kMergeWarps>(keys);
#pragma unroll
    for (int r = 0; r < kLaneKeys; ++r) {
      const int number = lane * kLaneKeys + r;
      if (warp == 0 && number < k) result->best[number] = CandidateOf(keys[r], row);
    }
  }
  if (warp == kMergeWarps - 1) WriteSums(work, request, work.partials + part, row, k, result);
}

int64_t Chunks(int64_t vocab) { return (vocab + kChunk - 1) / kChunk; }

}  // namespace

int64_t SampleWorkspaceBytes(int64_t rows, int64_t vocab) {
  const int64_t each = kListKeys * sizeof(SortKey) + sizeof(Partial);
  return rows * Chunks(vocab) * each;
}

absl::Status SampleRows(const float* logits, int64_t rows, int64_t vocab,
                        const SampleRequest* requests, const int32_t* recent, void* workspace,
                        SampleResult* results, StreamView stream) {
  MILLRACE_CHECK(rows >= 0 && rows <= 65535 && vocab > 0 && vocab <= INT32_MAX - kChunk);
  MILLRACE_CHECK(reinterpret_cast<uintptr_t>(workspace) % 16 == 0);
  if (rows == 0) return absl::OkStatus();
  Work work = {};
  work.logits = logits;
  work.vocab = static_cast<int32_t>(vocab);
  work.chunks = static_cast<int32_t>(Chunks(vocab));
  work.requests = requests;
  work.recent = recent;
  work.lists = static_cast<SortKey*>(workspace);
  work.partials = reinterpret_cast<Partial*>(work.lists + rows * work.chunks * kListKeys);
  work.results = results;
  const dim3 chunks(static_cast<unsigned>(work.chunks), static_cast<unsigned>(rows));
  MILLRACE_RETURN_IF_ERROR(Launch(ChunkKernel, chunks, dim3(kChunkThreads), 0, stream, work));
  return Launch(MergeKernel, dim3(static_cast<unsigned>(rows)), dim3(kMergeThreads), 0, stream,
                work);
}

}  // namespace millrace::cuda
