// Causal attention of many rows, after FlashAttention-2 (Dao, arXiv:2307.08691): a block takes one
// head of one tile of rows, from the last keys it sees to the first. Each warp keeps its rows'
// results and softmax in registers. The next K is copied to shared memory while P V is computed, V
// while Q K^T is; two blocks share a multiprocessor.
//
// Shared memory: Q [kRows], K [kKeys], V [kKeys] rows of kDim halves, in chunks of 16 bytes
// swizzled so that eight rows of a column of chunks lie in all 32 banks.
//
// Here: copies, products and softmax. attention_prefill_cuda.cu: results, the kernel, the launch.
#ifndef MILLRACE_KERNELS_ATTENTION_PREFILL_CUH_
#define MILLRACE_KERNELS_ATTENTION_PREFILL_CUH_

#include "kernels/attention_cuda.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/kv_cells.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"

namespace millrace::cuda::prefill {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr unsigned kAll = 0xffffffffu;

struct Args {
  const __half* q;
  __half* out;
  const uint8_t* k;
  const uint8_t* v;
  const AttentionTile* tiles;
  int heads, kv_heads, head_dim, context;
  float scale;  // times log2(e)
};

// kExactly: head_dim is kDim; else it is padded to it with zeros.
template <int kHeadDim, bool kExactly>
struct Shape {
  static constexpr int kDim = kHeadDim;
  static __device__ __forceinline__ int HeadDim(const Args& a) {
    return kExactly ? kDim : a.head_dim;
  }
  static constexpr int kGroups = kDim > 128 ? 1 : 2;  // of 16 rows a warp
  static constexpr int kWarpRows = 16 * kGroups;
  static constexpr int kRows = kWarpRows * kWarps;
  static constexpr int kKeys = kDim > 128 ? 32 : 64;
  static constexpr int kChunks = kDim / 8;
  static constexpr int kBlocks = kAttentionTileRows / kRows;  // per tile and head
  static constexpr int kKeyBytes = kKeys * kDim * 2;
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + 2 * kKeyBytes;
};

// Byte offset of a chunk in one of the shared arrays.
template <int kDim>
__device__ __forceinline__ int ChunkOffset(int row, int chunk) {
  const int mix = kDim % 64 == 0 ? row & 7 : row >> 1 & 3;
  return row * kDim * 2 + ((chunk ^ mix) << 4);
}

// The rows of this block, of one sequence.
struct Rows {
  int64_t row;   // in q and out
  int count;     // at most Shape::kRows
  int position;  // of the first
  int slot;
};

template <class S>
__device__ __forceinline__ Rows RowsOf(const Args& a) {
  const AttentionTile tile = a.tiles[blockIdx.y / S::kBlocks];
  const int skipped = blockIdx.y % S::kBlocks * S::kRows;
  return {static_cast<int64_t>(tile.first_row) + skipped, min(tile.rows - skipped, S::kRows),
          tile.first_position + skipped, tile.slot};
}

// The row and the chunk of a thread's i-th copy.
template <class S>
__device__ __forceinline__ int2 CopyPlace(int i) {
  if constexpr (kThreads % S::kChunks == 0) {
    constexpr int kStep = kThreads / S::kChunks;
    return make_int2(static_cast<int>(threadIdx.x) / S::kChunks + i * kStep,
                     threadIdx.x % S::kChunks);
  }
  const int index = threadIdx.x + i * kThreads;
  return make_int2(index / S::kChunks, index % S::kChunks);
}

template <class S>
__device__ __forceinline__ void CopyQueries(const Args& a, const Rows& rows, uint32_t to) {
  const int head_dim = S::HeadDim(a), stride = a.heads * head_dim;
  const __half* base = a.q + rows.row * stride + blockIdx.x * head_dim;
#pragma unroll
  for (int i = 0; i < S::kRows * S::kChunks / kThreads; ++i) {
    const int2 place = CopyPlace<S>(i);  // row, chunk
    CopyToShared(to + ChunkOffset<S::kDim>(place.x, place.y),
                 base + static_cast<int64_t>(place.x) * stride + 8 * place.y,
                 place.x < rows.count && 8 * place.y < head_dim);
  }
}

// Keys or values [first, first + kKeys) of one head, zeros from `end` on if it may lie among them.
// `base`: position 0.
template <class S, DType kType, bool kWhole>
__device__ __forceinline__ void CopyCells(const uint8_t* base, int head_dim, int first, int end,
                                          uint4* to) {
  constexpr int kCopies = S::kKeys * S::kChunks / kThreads;
  constexpr int kBatch = kCopies % 4 == 0 ? 4 : 2;  // loads under way where they go by registers
  static_assert(kCopies % kBatch == 0 && S::kKeys * S::kChunks % kThreads == 0);
  const int row_bytes = static_cast<int>(KvRowBytes(kType, head_dim));
  char* const bytes = reinterpret_cast<char*>(to);
  base += static_cast<int64_t>(first) * row_bytes;
#pragma unroll
  for (int i = 0; i < kCopies; i += kBatch) {
    typename KvCells<kType>::Raw raw[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int2 place = CopyPlace<S>(i + j);  // row, chunk
      const bool use = (kWhole || first + place.x < end) && 8 * place.y < head_dim;
      const uint8_t* row = base + place.x * row_bytes;
      if constexpr (kType == DType::kF16) {
        CopyToShared(SharedAddress(bytes + ChunkOffset<S::kDim>(place.x, place.y)),
                     row + 16 * place.y, use);
      } else {
        raw[j] = {};
        if (use) raw[j] = KvCells<kType>::Load(row, 8 * place.y);
      }
    }
    if constexpr (kType != DType::kF16) {
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int2 place = CopyPlace<S>(i + j);
        *reinterpret_cast<uint4*>(bytes + ChunkOffset<S::kDim>(place.x, place.y)) =
            KvCells<kType>::Halves(raw[j]);
      }
    }
  }
}

// The address of chunk `chunk + 2 i` of a row, given that of chunk `chunk` (0 or 1): arrays start
// at multiples of 1024 bytes, so that where a row's length is a power of two the swizzle is one
// XOR.
template <int kDim>
__device__ __forceinline__ uint32_t ChunkAddress(uint32_t array, uint32_t start, int row, int chunk,
                                                 int i) {
  if constexpr (kDim % 64 == 0) return start ^ static_cast<uint32_t>(i << 5);
  return array + ChunkOffset<kDim>(row, chunk + 2 * i);
}

// The address of a chunk, which the compiler shall not work out ahead of the loop for every i: it
// would run out of registers.
template <int kDim>
__device__ __forceinline__ uint32_t StartAddress(uint32_t array, int row, int chunk) {
  uint32_t start = array + ChunkOffset<kDim>(row, chunk);
  asm volatile("" : "+r"(start));
  return start;
}

// Scores of a warp's rows: [group of rows][eight keys], rows g (0, 1) and g + 8 (2, 3) by keys
// 2t, 2t + 1.
template <class S>
using Scores = float[S::kGroups][S::kKeys / 8][4];

template <class S>
__device__ __forceinline__ void Score(uint32_t q, uint32_t k, Scores<S>& s) {
  const int lane = threadIdx.x % 32;
  const int q_row = threadIdx.x / 32 * S::kWarpRows + lane % 16, q_chunk = lane / 16;
  const int k_row = lane % 8 + lane / 16 * 8, k_chunk = lane / 8 % 2;
#pragma unroll
  for (auto& rows : s) {
#pragma unroll
    for (auto& x : rows) x[0] = x[1] = x[2] = x[3] = 0;
  }
  const uint32_t q_start = StartAddress<S::kDim>(q, q_row, q_chunk);
  const uint32_t k_start = StartAddress<S::kDim>(k, k_row, k_chunk);
#pragma unroll
  for (int i = 0; i < S::kDim / 16; ++i) {
    const uint32_t q_at = ChunkAddress<S::kDim>(q, q_start, q_row, q_chunk, i);
    const uint32_t k_at = ChunkAddress<S::kDim>(k, k_start, k_row, k_chunk, i);
    uint32_t a[S::kGroups][4];
#pragma unroll
    for (int m = 0; m < S::kGroups; ++m) LoadMatrices(a[m], q_at + m * 16 * S::kDim * 2);
#pragma unroll
    for (int n = 0; n < S::kKeys / 16; ++n) {
      uint32_t b[4];
      LoadMatrices(b, k_at + n * 16 * S::kDim * 2);
#pragma unroll
      for (int m = 0; m < S::kGroups; ++m) {
        MmaF16(s[m][2 * n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
        MmaF16(s[m][2 * n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
      }
    }
  }
}

// first_key: of the scores; position: of the warp's first row.
template <class S>
__device__ __forceinline__ void Mask(int first_key, int position, Scores<S>& s) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int m = 0; m < S::kGroups; ++m) {
#pragma unroll
    for (int n = 0; n < S::kKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first_key + 8 * n + 2 * t + i % 2;
        if (key > position + 16 * m + g + i / 2 * 8) s[m][n][i] = -INFINITY;
      }
    }
  }
}

template <class S>
struct Running {
  float mixed[S::kGroups][S::kDim / 8][4] = {};  // layout as of scores, by values
  float peak[S::kGroups][2];                     // scaled, rows g and g + 8
  float sum[S::kGroups][2];                      // of this lane's keys only, until Finish

  __device__ __forceinline__ Running() {
#pragma unroll
    for (int m = 0; m < S::kGroups; ++m) {
      peak[m][0] = peak[m][1] = -INFINITY;
      sum[m][0] = sum[m][1] = 0;
    }
  }

  // Turns the scores into weights; what was summed before is brought to the same peak.
  __device__ __forceinline__ void Weigh(float scale, Scores<S>& s) {
    float factor[S::kGroups][2];
    bool moved = false;
#pragma unroll
    for (int m = 0; m < S::kGroups; ++m) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float top = -INFINITY;
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n) {
          top = fmaxf(top, fmaxf(s[m][n][2 * j], s[m][n][2 * j + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(kAll, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kAll, top, 2));
        top = fmaxf(peak[m][j], top * scale);
        const float base = top == -INFINITY ? 0.0f : top;
        factor[m][j] = Exp2(peak[m][j] - base);
        moved |= factor[m][j] != 1.0f;
        peak[m][j] = top;
        float total = 0;
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n) {
          s[m][n][2 * j] = Exp2(s[m][n][2 * j] * scale - base);
          s[m][n][2 * j + 1] = Exp2(s[m][n][2 * j + 1] * scale - base);
          total += s[m][n][2 * j] + s[m][n][2 * j + 1];
        }
        sum[m][j] = sum[m][j] * factor[m][j] + total;
      }
    }
    if (__any_sync(kAll, moved)) Rescale(factor);
  }

  __device__ __forceinline__ void Rescale(const float (&factor)[S::kGroups][2]) {
#pragma unroll
    for (int m = 0; m < S::kGroups; ++m) {
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n) {
        mixed[m][n][0] *= factor[m][0];
        mixed[m][n][1] *= factor[m][0];
        mixed[m][n][2] *= factor[m][1];
        mixed[m][n][3] *= factor[m][1];
      }
    }
  }

  __device__ __forceinline__ void Finish() {
#pragma unroll
    for (auto& rows : sum) {
#pragma unroll
      for (float& x : rows) {
        x += __shfl_xor_sync(kAll, x, 1);
        x += __shfl_xor_sync(kAll, x, 2);
      }
    }
  }
};

template <class S>
__device__ __forceinline__ void Mix(const Scores<S>& weights, uint32_t v, Running<S>& run) {
  const int lane = threadIdx.x % 32, v_row = lane % 16, v_chunk = lane / 16;
  const uint32_t v_start = StartAddress<S::kDim>(v, v_row, v_chunk);
#pragma unroll
  for (int i = 0; i < S::kKeys / 16; ++i) {
    uint32_t a[S::kGroups][4];
#pragma unroll
    for (int m = 0; m < S::kGroups; ++m) {
      const float(&left)[4] = weights[m][2 * i], (&right)[4] = weights[m][2 * i + 1];
      a[m][0] = PackHalves(left[0], left[1]);
      a[m][1] = PackHalves(left[2], left[3]);
      a[m][2] = PackHalves(right[0], right[1]);
      a[m][3] = PackHalves(right[2], right[3]);
    }
#pragma unroll
    for (int n = 0; n < S::kDim / 16; ++n) {
      uint32_t b[4];
      LoadMatricesTransposed(
          b, ChunkAddress<S::kDim>(v, v_start, v_row, v_chunk, n) + i * 16 * S::kDim * 2);
#pragma unroll
      for (int m = 0; m < S::kGroups; ++m) {
        MmaF16(run.mixed[m][2 * n], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
        MmaF16(run.mixed[m][2 * n + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
      }
    }
  }
}

}  // namespace millrace::cuda::prefill

#endif  // MILLRACE_KERNELS_ATTENTION_PREFILL_CUH_
