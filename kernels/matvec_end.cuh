// What a block of matvec_cuda.cuh reads of an op beside weights, and what it does with finished sums.
//
// Loads from memory queue behind the weights that are on their way to the multiprocessor, for microseconds:
// so all of them are made at once, at the op's beginning, into shared memory.
#ifndef MILLRACE_KERNELS_MATVEC_END_CUH_
#define MILLRACE_KERNELS_MATVEC_END_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/matvec_ring.cuh"

namespace millrace::cuda::matvec {

constexpr int kThreads = 32 * kWarps;
constexpr int kKept = 8;  // strips of a block whose rows' other inputs are loaded ahead

struct Inputs {
  float squares[kWarps];  // of the deferred norm, summed by warps
  float prescale;
  float added[kKept][16], weight[kKept][16];  // by strip and row
};
static_assert(kDeferredNormParts <= kThreads && kKept * 16 <= kThreads);

// What is added to a row's product before the residual stream is written.
__device__ __forceinline__ float AddedTo(const SmallMatmulParams& p, int row) {
  float v = p.bias != nullptr ? p.bias[row] : 0;
  if (p.accumulate) v += p.y[row];
  return v;
}

// The activations to `x` as they are, with zeros to the end of the last tile.
__device__ __forceinline__ void LoadPlainRow(const Op& op, uint4* x) {
  constexpr int kAtOnce = 4;
  const int quads = op.p.cols / 8, padded = op.p.tiles_per_strip * op.tile_cols / 8;
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += kAtOnce * kThreads) {
    uint4 v[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int at = i + u * kThreads;
      v[u] = at < quads ? reinterpret_cast<const uint4*>(op.p.x)[at] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (i + u * kThreads < padded) x[i + u * kThreads] = v[u];
    }
  }
}

// The same from packets.
__device__ __forceinline__ void LoadPacketRow(const Op& op, uint32_t flag, uint32_t* x) {
  constexpr int kAtOnce = 7;
  const int words = op.p.cols / 2, padded = op.p.tiles_per_strip * op.tile_cols / 2;
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += kAtOnce * kThreads) {
    uint64_t word[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      if (i + u * kThreads < words) word[u] = LoadPacket(op.from + i + u * kThreads);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int at = i + u * kThreads;
      if (at < words) x[at] = AwaitPacket(op.from + at, word[u], flag);
      if (at >= words && at < padded) x[at] = 0;
    }
  }
}

// A float from plain memory, or from packets: asked for at once, waited for when it is taken.
class Asked {
 public:
  __device__ __forceinline__ Asked(bool wanted, const float* plain, const uint64_t* packet)
      : packet_(wanted ? packet : nullptr) {
    if (packet_ != nullptr) {
      word_ = LoadPacket(packet_);
    } else if (wanted) {
      value_ = *plain;
    }
  }
  __device__ __forceinline__ float Take(uint32_t flag) const {
    return packet_ != nullptr ? __uint_as_float(AwaitPacket(packet_, word_, flag)) : value_;
  }

 private:
  const uint64_t* packet_;
  uint64_t word_ = 0;
  float value_ = 0;
};

// All threads of the block, with barriers of the block before and after. Everything is asked for before
// anything is waited for.
__device__ __forceinline__ void LoadInputs(const Op& op, const Share& share, uint32_t epoch, Inputs& in,
                                           void* x) {
  const SmallMatmulParams& p = op.p;
  const int thread = static_cast<int>(threadIdx.x), index = thread / 16;
  const bool keeps = index < kKept && index < (op.swiglu ? share.parts / 2 : share.parts);
  const int row = 16 * (share.first + index * static_cast<int>(gridDim.x)) + thread % 16;
  const bool inside = keeps && row < p.rows;
  const float bias = inside && p.bias != nullptr ? p.bias[row] : 0;
  const float before = inside && p.accumulate ? p.y[row] : 0;
  const float weight = inside && p.next_weight != nullptr ? p.next_weight[row] : 0;
  const uint32_t flag = op.from_flag + epoch;
  const bool norm = p.norm.sums != nullptr && !op.norm_is_there && !op.beside;
  const uint64_t *squares = nullptr, *prescale = nullptr;
  if (op.from != nullptr) {
    squares = op.from + kSquarePackets + thread;
    prescale = op.from + kPrescalePacket;
  }
  const Asked square(norm && thread < p.norm.parts, p.norm.sums + thread, squares);
  const Asked scale(norm && thread == 0, p.norm.prescale, prescale);
  if (!op.beside) {
    if (op.from == nullptr) {
      LoadPlainRow(op, static_cast<uint4*>(x));
    } else {
      LoadPacketRow(op, flag, static_cast<uint32_t*>(x));
    }
  }
  if (keeps) {
    in.added[index][thread % 16] = bias + before;
    in.weight[index][thread % 16] = weight;
  }
  if (!norm) return;
  float sum = square.Take(flag);
#pragma unroll
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (thread % 32 == 0) in.squares[thread / 32] = sum;
  if (thread == 0) in.prescale = scale.Take(flag);
}

// 1 / rms of the deferred norm.
__device__ __forceinline__ float InverseRms(const SmallMatmulParams& p, const Inputs& in) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += in.squares[w];
  return 1.0f / sqrtf(sum / static_cast<float>(p.norm.d) + p.norm.epsilon);
}

// Lanes 0 to 15 get their row's; the others' are of no use.
__device__ __forceinline__ float SumOfWarps(const float (&sums)[kWarps][16], int lane) {
  float v = 0;
#pragma unroll
  for (int w = 0; w < kWarps / 2; ++w) v += sums[lane / 16 * (kWarps / 2) + w][lane % 16];
  return v + __shfl_xor_sync(~0u, v, 16);
}

// A finished half of row `row`, in lanes 0 to 15: to the next op of the launch, or to `plain`.
__device__ __forceinline__ void HandOn(const Op& op, uint32_t epoch, __half* plain, int row, __half v,
                                       bool mine) {
  if (op.to == nullptr) {
    if (mine) plain[row] = v;
    return;
  }
  const uint32_t low = __half_as_ushort(v), high = __shfl_down_sync(~0u, low, 1);
  if (mine && row % 2 == 0) StorePacket(op.to + row / 2, high << 16 | low, op.to_flag + epoch);
}

// One warp: rows of the block's index-th strip from their finished sums [gate, up][warp][row]; without
// SwiGLU the first only.
template <bool kSwiGlu>
__device__ __forceinline__ void FinishStrip(const Op& op, uint32_t epoch, const Inputs& in, int strip,
                                            int index, const float (&sums)[2][kWarps][16], int lane) {
  const SmallMatmulParams& p = op.p;
  const int row = 16 * strip + lane % 16;
  const bool mine = lane < 16 && row < p.rows;
  float v = SumOfWarps(sums[0], lane) * p.multiplier;
  const bool to_norm = !kSwiGlu && p.next_weight != nullptr, normed = p.norm.sums != nullptr;
  float scale = normed ? InverseRms(p, in) : 1;
  if (normed && !to_norm) {
    scale /= in.prescale;
    v *= scale;
  }
  if (kSwiGlu) {
    const float up = SumOfWarps(sums[1], lane) * p.up_multiplier * scale;
    HandOn(op, epoch, p.out, row, SaturatedHalf(v / (1.0f + __expf(-v)) * up), mine);
    return;
  }
  const bool kept = index < kKept;
  if (mine) v += kept ? in.added[index][lane] : AddedTo(p, row);
  if (mine) p.y[row] = v;
  if (!to_norm) return;
  const float prescale = scale * kNormHeadroom;
  const float weight = !mine ? 0 : kept ? in.weight[index][lane] : p.next_weight[row];
  HandOn(op, epoch, p.normed, row, SaturatedHalf(v * weight * prescale), mine);
  float square = mine ? v * v : 0;
#pragma unroll
  for (int step = 8; step > 0; step /= 2) square += __shfl_xor_sync(~0u, square, step);
  if (lane != 0) return;
  p.next_sums[strip] = square;
  if (strip == 0) p.next_prescale[0] = prescale;
  if (op.to == nullptr) return;
  StorePacket(op.to + kSquarePackets + strip, __float_as_uint(square), op.to_flag + epoch);
  if (strip == 0) StorePacket(op.to + kPrescalePacket, __float_as_uint(prescale), op.to_flag + epoch);
}

}  // namespace millrace::cuda::matvec

#endif  // MILLRACE_KERNELS_MATVEC_END_CUH_
