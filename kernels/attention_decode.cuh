// Split-KV decode attention (Flash-Decoding:
// https://crfm.stanford.edu/2023/10/12/flashdecoding.html).
//
// A block takes up to eight query heads of one KV head of one row over one part of the context. Its
// warps take 16 positions at a time in turn, straight from memory into the operands of the tensor
// cores: a product's inner index may be numbered at will as long as both operands agree, so a
// lane's 16 consecutive bytes of a row serve as they are.
//   scores [16 positions, 8 heads] = K [16, head_dim] Q^T
//   mixed^T [head_dim, 8 heads] += V^T [head_dim, 16 positions] P^T
// K is loaded 16 positions ahead while the weights of the present ones are made, V likewise. The
// warps' sums are joined in shared memory; the parts', where there are few, through the shared memory
// of a cluster, else by whichever block of a row comes last; always in the same order.
//
// Here: what one warp does. attention_decode_cuda.cu: joining, the kernel, the launch.
#ifndef MILLRACE_KERNELS_ATTENTION_DECODE_CUH_
#define MILLRACE_KERNELS_ATTENTION_DECODE_CUH_

#include "kernels/attention_cuda.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/kv_cells.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/rope_heads.cuh"

namespace millrace::cuda::decode {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStep = 16;               // positions a warp takes at a time
constexpr int kBlock = kStep * kWarps;  // parts are multiples of this
constexpr int kHeads = 8;               // query heads of a block
constexpr unsigned kAll = 0xffffffffu;

struct Args {
  const __half* q;
  __half* out;
  const uint8_t* k;
  const uint8_t* v;
  PassRows rows;
  float* mixed;        // [n, heads, splits, head_dim]: sum of V weighted by 2^(score - peak)
  float2* peaks;       // [n, heads, splits]: peak, sum of the weights
  uint32_t* counters;  // [n, gridDim.y]
  int heads, kv_heads, head_dim, context, splits;
  float scale;  // times log2(e)
  bool clustered;  // the parts of a row are one cluster, and joined inside it
  // qkv not null: queries, and the row's own key and value, are made from it first; q is not read.
  RopeAppendArgs rope;
};

// The heads of this block: [first, first + count).
struct Heads {
  int kv_head, first, count;
};

__device__ __forceinline__ Heads HeadsOf(const Args& a) {
  const int group = a.heads / a.kv_heads, tiles = (group + kHeads - 1) / kHeads;
  const int kv_head = blockIdx.y / tiles, in_group = blockIdx.y % tiles * kHeads;
  return {kv_head, kv_head * group + in_group, min(kHeads, group - in_group)};
}

template <DType kType, int kDim>
struct Registers {
  typename KvCells<kType>::Raw k[kDim / 32][2];  // row g + 8 i, values 32 c + 8 t
  typename KvCells<kType>::Raw v[kDim / 64]
                                [4];  // rows 2t, 2t + 1, 2t + 8, 2t + 9, values 64 c + 8 g
};

// Rows past `last` repeat it: their weights will be zero.
template <DType kType, int kDim>
__device__ __forceinline__ void LoadKeys(const uint8_t* base, int head_dim, int position, int last,
                                         Registers<kType, kDim>& r) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint8_t* row = base + min(position + g + 8 * i, last) * KvRowBytes(kType, head_dim);
#pragma unroll
    for (int c = 0; c < kDim / 32; ++c) {
      const int dim = 32 * c + 8 * t;
      r.k[c][i] = {};
      if (dim < head_dim) r.k[c][i] = KvCells<kType>::Load(row, dim);
    }
  }
}

template <DType kType, int kDim>
__device__ __forceinline__ void LoadValues(const uint8_t* base, int head_dim, int position,
                                           int last, Registers<kType, kDim>& r) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int offset = 2 * t + i % 2 + i / 2 * 8;
    const uint8_t* row = base + min(position + offset, last) * KvRowBytes(kType, head_dim);
#pragma unroll
    for (int c = 0; c < kDim / 64; ++c) {
      const int dim = 64 * c + 8 * g;
      r.v[c][i] = {};
      if (dim < head_dim) r.v[c][i] = KvCells<kType>::Load(row, dim);
    }
  }
}

// The query as the second operand: of head g, values 32 c + 8 t.. a lane. In registers, or in
// shared memory where there are too many.
template <int kDim>
struct Query {
  static constexpr bool kShared = kDim > 128;
  static constexpr int kStride = kDim + 8;  // halves between heads: no bank conflicts
  uint4 x[kShared ? 1 : kDim / 32];
  const __half* shared;

  // From memory, or from `room` where `made`: MakeRows has put them there. All threads of the block.
  __device__ __forceinline__ void Load(const Args& a, const Heads& heads, bool made, __half* room) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    shared = room + g * kStride + 8 * t;
    const __half* first =
        a.q + (static_cast<int64_t>(blockIdx.z) * a.heads + heads.first) * a.head_dim;
    if constexpr (kShared) {
      for (int i = threadIdx.x; i < kHeads * (kDim / 8); i += kThreads) {
        const int head = i / (kDim / 8), dim = i % (kDim / 8) * 8;
        const bool there = head < heads.count && dim < a.head_dim;
        if (there && made) continue;
        uint4 y = {};
        if (there) y = *reinterpret_cast<const uint4*>(first + head * a.head_dim + dim);
        *reinterpret_cast<uint4*>(room + head * kStride + dim) = y;
      }
      __syncthreads();
    } else {
      const __half* head = made ? room + g * kStride : first + g * a.head_dim;
#pragma unroll
      for (int c = 0; c < kDim / 32; ++c) {
        const int dim = 32 * c + 8 * t;
        x[c] = {};
        if (g < heads.count && dim < a.head_dim) {
          x[c] = *reinterpret_cast<const uint4*>(head + dim);
        }
      }
    }
  }
  __device__ __forceinline__ uint4 Get(int c) const {
    if constexpr (kShared) return *reinterpret_cast<const uint4*>(shared + 32 * c);
    return x[kShared ? 0 : c];
  }
};

// The block's queries into `room` [kHeads][kStride], and where the block has the row's newest position
// its key and value into the cache. `staged` holds (kHeads + 2) * kDim floats. Ends with a barrier.
template <DType kType, int kDim>
__device__ __forceinline__ void MakeRows(const Args& a, const Heads& heads, int position,
                                         bool newest, float* staged, __half* room) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = blockIdx.z;
  const RopeAppendArgs& rope = a.rope;
  const float* from = rope.qkv + row * rope.stride;
  const int units = heads.count + (newest ? 2 : 0);
  auto column = [&](int unit) {
    if (unit < heads.count) return heads.first + unit;
    return a.heads + heads.kv_head + (unit - heads.count) * a.kv_heads;
  };
  for (int unit = warp; unit < units; unit += kWarps) {
    for (int d = lane; d < a.head_dim; d += 32) {
      staged[unit * kDim + d] = from[column(unit) * a.head_dim + d];
    }
  }
  __syncwarp();
  for (int unit = warp; unit < units; unit += kWarps) {
    float* head = staged + unit * kDim;
    const bool is_q = unit < heads.count, is_v = unit == heads.count + 1;
    const float* weight = is_q ? rope.q_norm : is_v ? nullptr : rope.k_norm;
    if (weight != nullptr) NormHead(head, a.head_dim, weight, rope.epsilon);
    __syncwarp();
    if (!is_v) {
      RotateHead(head, rope.dims, rope.style, rope.table + static_cast<int64_t>(row) * rope.dims);
    }
    __syncwarp();
    if (is_q) {
      __half* to = room + unit * Query<kDim>::kStride;
      for (int d = lane; d < a.head_dim; d += 32) to[d] = SaturatedHalf(head[d]);
      continue;
    }
    const int64_t cell =
        (static_cast<int64_t>(a.rows.slot[row]) * a.kv_heads + heads.kv_head) * a.context + position;
    StoreCell(head, a.head_dim, kType,
              const_cast<uint8_t*>(is_v ? a.v : a.k) + cell * KvRowBytes(kType, a.head_dim));
  }
  __syncthreads();
}

// Asks for `bytes` from `from` on to come into the second-level cache, at most 32 KiB of them.
__device__ __forceinline__ void PrefetchToL2(const uint8_t* from, int64_t bytes) {
  const int64_t end = min(bytes, int64_t{32768});
  for (int64_t at = 128 * static_cast<int64_t>(threadIdx.x); at < end; at += 128 * kThreads) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from + at)));
  }
}

// A warp's running sums, for heads 2t and 2t + 1.
template <int kDim>
struct Running {
  float peak[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};           // of this lane's positions only, until Finish
  float mixed[kDim / 16][4] = {};  // [4 c + i]: values 64 c + 8 g + 2 i (0, 1) and 1 more (2, 3)

  // s: rows g (0, 1) and g + 8 (2, 3) of the scores by heads 2t, 2t + 1. Becomes the weights.
  __device__ __forceinline__ void Weigh(float (&s)[4]) {
    float factor[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float top = fmaxf(s[j], s[j + 2]);
#pragma unroll
      for (int step = 4; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(kAll, top, step));
      top = fmaxf(top, peak[j]);
      const float base = top == -INFINITY ? 0.0f : top;
      factor[j] = Exp2(peak[j] - base);
      peak[j] = top;
      s[j] = Exp2(s[j] - base);
      s[j + 2] = Exp2(s[j + 2] - base);
      sum[j] = sum[j] * factor[j] + (s[j] + s[j + 2]);
    }
    if (!__any_sync(kAll, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
    for (auto& m : mixed) {
      m[0] *= factor[0];
      m[1] *= factor[1];
      m[2] *= factor[0];
      m[3] *= factor[1];
    }
  }

  __device__ __forceinline__ void Finish() {
#pragma unroll
    for (float& x : sum) {
#pragma unroll
      for (int step = 4; step < 32; step *= 2) x += __shfl_xor_sync(kAll, x, step);
    }
  }
};

template <DType kType, int kDim>
__device__ __forceinline__ void Score(const Registers<kType, kDim>& r, const Query<kDim>& query,
                                      float (&s)[4]) {
  float odd[4] = {};
#pragma unroll
  for (int c = 0; c < kDim / 32; ++c) {
    const uint4 a = KvCells<kType>::Halves(r.k[c][0]), b = KvCells<kType>::Halves(r.k[c][1]);
    const uint4 q = query.Get(c);
    MmaF16(s, a.x, b.x, a.y, b.y, q.x, q.y);
    MmaF16(odd, a.z, b.z, a.w, b.w, q.z, q.w);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) s[i] += odd[i];
}

template <DType kType, int kDim>
__device__ __forceinline__ void Mix(const Registers<kType, kDim>& r, const float (&weights)[4],
                                    Running<kDim>& run) {
  const uint32_t b0 = Transpose8x8(PackHalves(weights[0], weights[1]));
  const uint32_t b1 = Transpose8x8(PackHalves(weights[2], weights[3]));
#pragma unroll
  for (int c = 0; c < kDim / 64; ++c) {
    uint4 rows[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) rows[i] = KvCells<kType>::Halves(r.v[c][i]);
    const auto mma = [&](float(&m)[4], uint32_t x0, uint32_t x1, uint32_t x8, uint32_t x9) {
      MmaF16(m, __byte_perm(x0, x1, 0x5410), __byte_perm(x0, x1, 0x7632),
             __byte_perm(x8, x9, 0x5410), __byte_perm(x8, x9, 0x7632), b0, b1);
    };
    mma(run.mixed[4 * c], rows[0].x, rows[1].x, rows[2].x, rows[3].x);
    mma(run.mixed[4 * c + 1], rows[0].y, rows[1].y, rows[2].y, rows[3].y);
    mma(run.mixed[4 * c + 2], rows[0].z, rows[1].z, rows[2].z, rows[3].z);
    mma(run.mixed[4 * c + 3], rows[0].w, rows[1].w, rows[2].w, rows[3].w);
  }
}

// The warp's positions of [first, end).
template <DType kType, int kDim>
__device__ __forceinline__ void Attend(const Args& a, const Query<kDim>& query, int64_t offset,
                                       int first, int end, Running<kDim>& run) {
  const int g = threadIdx.x % 32 / 4;
  int position = first + static_cast<int>(threadIdx.x) / 32 * kStep;
  if (position >= end) return;
  Registers<kType, kDim> r;
  LoadKeys(a.k + offset, a.head_dim, position, end - 1, r);
  LoadValues(a.v + offset, a.head_dim, position, end - 1, r);
  while (true) {
    float s[4] = {};
    Score(r, query, s);
    const int next = position + kBlock;
    if (next < end) LoadKeys(a.k + offset, a.head_dim, next, end - 1, r);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      s[i] = position + g + i / 2 * 8 < end ? s[i] * a.scale : -INFINITY;
    }
    run.Weigh(s);
    Mix(r, s, run);
    if (next >= end) break;
    LoadValues(a.v + offset, a.head_dim, next, end - 1, r);
    position = next;
  }
  run.Finish();
}

}  // namespace millrace::cuda::decode

#endif  // MILLRACE_KERNELS_ATTENTION_DECODE_CUH_
