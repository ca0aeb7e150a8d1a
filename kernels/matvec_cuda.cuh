// The kernel behind RunMatvecs (matvec_cuda.h), for a set of weight types. Included by one .cu per set.
//
// Block b of B takes strips b, b + B, ... of sixteen rows of each op. Its warps share out the stages (about
// 2 KiB of consecutive tiles) of all these strips in turn. A warp leaves what it summed of a strip in
// shared memory and goes on; one of them, another for each strip, adds up all warps' sums, in order, and
// finishes the rows. So a result's bits depend on shapes and the number of multiprocessors only.
#ifndef MILLRACE_KERNELS_MATVEC_CUDA_CUH_
#define MILLRACE_KERNELS_MATVEC_CUDA_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/matvec_end.cuh"
#include "kernels/matvec_ring.cuh"
#include "kernels/matvec_sums.cuh"
#include "proto/status_macros.h"

namespace millrace::cuda::matvec {

constexpr int kUnits = 4;  // strips (with SwiGLU pairs of strips) whose sums may be unfinished
// With more a block of the attention that follows does not find room beside this kernel's.
constexpr int kRegisters = 80;
constexpr int kMostRingBytes = 12288;  // of a warp: more under way gains nothing
constexpr int kLeastRingBytes = 6784;  // two tiles of the largest type, Q6_K

constexpr int kEpochShift = 10;  // below: the number of a launch in its pass, and of the op

struct Shared {
  float sums[kUnits][2][kWarps][16];
  Inputs inputs;
  uint64_t ring[kWarps][kMostStages];
  uint64_t summed[kUnits];    // all warps left their sums
  uint64_t finished[kUnits];  // they were read
};

class Warp {
 public:
  __device__ Warp(const Params& p, uint8_t* memory, Shared& shared)
      : lane_(threadIdx.x % 32),
        warp_(__shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0)),
        x_(reinterpret_cast<__half*>(memory)), shared_(shared),
        ring_(p, memory + p.row_bytes + warp_ * p.ring_bytes, shared.ring[warp_], warp_, lane_) {}

  template <DType T, bool kSwiGlu>
  __device__ __forceinline__ void Run(const Op& op, const Share& share, uint32_t epoch) {
    constexpr int kTileBytes = TileCodec<T>::kTileBytes;
    const int stage_tiles = op.stage_tiles;
    StripSum<T> sum;
    int left = 0;  // parts whose sums were left
    int part = warp_ / share.per_part, stage = warp_ % share.per_part;
    while (part < share.parts) {
      for (; left < part; ++left) Leave<kSwiGlu>(op, epoch, share, left, sum);
      const int first = stage * stage_tiles;
      const int tiles = min(stage_tiles, op.p.tiles_per_strip - first);
      const uint8_t* tile = ring_.Wait(tiles * kTileBytes);
      const __half* x = x_ + first * TileCodec<T>::kTileCols;
#pragma unroll 1
      for (int i = 0; i < tiles; ++i, tile += kTileBytes, x += TileCodec<T>::kTileCols) {
        sum.Add(tile, x, lane_);
      }
      ring_.Release(tiles * kTileBytes);
      for (stage += kWarps; stage >= share.per_part; stage -= share.per_part) ++part;
    }
    for (; left < share.parts; ++left) Leave<kSwiGlu>(op, epoch, share, left, sum);
    units_ += share.parts / (kSwiGlu ? 2 : 1);
  }

 private:
  template <bool kSwiGlu, typename Sum>
  __device__ __forceinline__ void Leave(const Op& op, uint32_t epoch, const Share& share, int part,
                                        Sum& sum) {
    const uint32_t unit = units_ + static_cast<uint32_t>(kSwiGlu ? part / 2 : part);
    const uint32_t at = unit % kUnits, round = unit / kUnits;
    const int half = kSwiGlu ? part % 2 : 0;
    if (round > 0 && half == 0) WaitAt(&shared_.finished[at], (round - 1) % 2);
    sum.Leave(shared_.sums[at][half][warp_], lane_);
    if (kSwiGlu && half == 0) return;
    __syncwarp();
    if (lane_ == 0) ArriveAt(&shared_.summed[at]);
    if (unit % kWarps != static_cast<uint32_t>(warp_)) return;
    WaitAt(&shared_.summed[at], round % 2);
    FinishStrip<kSwiGlu>(op, epoch, shared_.inputs, share.Strip(op, part), kSwiGlu ? part / 2 : part,
                         shared_.sums[at], lane_);
    __syncwarp();
    if (lane_ == 0) ArriveAt(&shared_.finished[at]);
  }

  const int lane_, warp_;
  const __half* const x_;
  Shared& shared_;
  uint32_t units_ = 0;  // of the ops before
  Ring ring_;
};

template <DType... Ts>
__global__ void __maxnreg__(kRegisters) Kernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ Shared shared;
  LetNextStart();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kUnits; ++i) {
      InitBarrier(&shared.summed[i], kWarps);
      InitBarrier(&shared.finished[i], 1);
    }
  }
  Warp warp(p, memory, shared);
  // One thread for all: what it has seen they see behind the barrier.
  if (threadIdx.x == 0) WaitForPrevious();
  __syncthreads();
  const uint32_t epoch = p.epoch != nullptr ? *p.epoch << kEpochShift : 0;
  for (int i = 0; i < p.count; ++i) {
    const Op& op = p.ops[i];
    const Share share(op);
    if (i > 0) __syncthreads();
    LoadInputs(op, share, epoch, shared.inputs, memory);
    __syncthreads();
    ((op.dtype == Ts ? (op.swiglu ? warp.Run<Ts, true>(op, share, epoch)
                                  : warp.Run<Ts, false>(op, share, epoch))
                     : void()),
     ...);
  }
#endif
}

// About 2 KiB, or 4 where every warp has many: each stage costs some fifty instructions.
inline int StageTiles(const Op& op, int blocks) {
  const int least = op.tile_bytes >= 1300 ? 1 : 2304 / op.tile_bytes;
  const int64_t strips = (op.p.strips + blocks - 1) / blocks * (op.swiglu ? 2 : 1);
  return strips * op.p.tiles_per_strip >= int64_t{16} * kWarps * least ? 2 * least : least;
}

// Launches `p`, ops filled but for what follows from their types. `room`: bytes of shared memory for
// activations and rings. Unimplemented where a row is too long for it.
template <DType... Ts>
absl::Status RunSet(Params& p, int multiprocessors, int room, StreamView stream) {
  const auto kernel = Kernel<Ts...>;
  int strips = 0;
  for (int i = 0; i < p.count; ++i) {
    Op& op = p.ops[i];
    ((op.dtype == Ts ? void((op.tile_bytes = TileCodec<Ts>::kTileBytes,
                             op.tile_cols = TileCodec<Ts>::kTileCols,
                             op.stage_tiles = StageTiles(op, multiprocessors)))
                     : void()),
     ...);
    const int row_bytes = (2 * op.tile_cols * op.p.tiles_per_strip + 127) / 128 * 128;
    if (row_bytes > p.row_bytes) p.row_bytes = row_bytes;
    if (!op.beside) strips = 0;
    op.shift = (multiprocessors - strips % multiprocessors) % multiprocessors;
    strips += op.p.strips;
  }
  p.ring_bytes = (room - p.row_bytes) / kWarps / 128 * 128;
  if (p.ring_bytes > kMostRingBytes) p.ring_bytes = kMostRingBytes;
  if (p.ring_bytes < kLeastRingBytes) return absl::UnimplementedError("matvec: a row this long");
  const int shared = p.row_bytes + kWarps * p.ring_bytes;
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  MILLRACE_RETURN_IF_ERROR(PreferSharedMemory(kernel));
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(multiprocessors));
  shape.block = dim3(32 * kWarps);
  shape.shared = static_cast<size_t>(shared);
  shape.cooperative = p.count > 1;
  return Launch(kernel, shape, stream, p);
}

// The sets of types that there are kernels for, each in a .cu of its own.
absl::Status RunF16(Params& p, int multiprocessors, int room, StreamView stream);
absl::Status RunQ8_0(Params& p, int multiprocessors, int room, StreamView stream);

}  // namespace millrace::cuda::matvec

#endif  // MILLRACE_KERNELS_MATVEC_CUDA_CUH_
