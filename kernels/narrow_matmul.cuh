// The wide product's kernel for at most 64 rows of x (wide_matmul.cuh has the terms). Included by
// one .cu per width, compiled for sm_90a only.
//
// Reading the weights is what takes time here: sixteen warps of a block turn them into fragments,
// in four warpgroups. A block has two times 64 weight rows; the two warpgroups of the same rows
// take turns at the weight tiles along the columns, and the first adds what the second has. The
// blocks of a cluster have different weight rows and fetch x for each other.
#ifndef MILLRACE_KERNELS_NARROW_MATMUL_CUH_
#define MILLRACE_KERNELS_NARROW_MATMUL_CUH_

#include "kernels/cuda/block_barrier.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/wide_fragments.cuh"
#include "kernels/wide_launch.cuh"
#include "kernels/wide_matmul_epilogue.cuh"
#include "kernels/wide_matmul_params.h"

namespace millrace::cuda {

// One kernel per type: with several in one, registers do not suffice. kRowPartsT times 64 weight
// rows a block, or gate and up of 64.
template <DType kTypeT, int kTokensT, int kRowPartsT, bool kSwiGluT>
struct NarrowShape {
  static constexpr DType kType = kTypeT;
  static constexpr int kTokens = kTokensT;
  static constexpr bool kSwiGlu = kSwiGluT;
  static constexpr int kRowParts = kRowPartsT;
  static constexpr int kSplits = 4 / kRowParts;  // warpgroups that share rows
  static constexpr int kCluster = 2;
  static constexpr int kConsumers = 16;  // warps
  static constexpr int kThreads = 32 * kConsumers + 128;
  static constexpr int kStageBytes = kTokens * 128;  // 64 columns of x
  static constexpr uint32_t kStages = 512 / kTokens;
  static constexpr int kMostSlots = 4;
  static constexpr int kRing = static_cast<int>(kStages) * kStageBytes;
  static constexpr int kSums = kTokens / 2;  // of a thread
  static constexpr int kExchange = (kSplits - 1) * kRowParts * 128 * kSums * 4;
  static constexpr int kFixedBytes = 1024 + kRing + kExchange;
  // Blocks of x along a weight tile. A stage always serves the same warpgroups, so that they see
  // each of its phases: x is filled up to whole turns.
  static constexpr uint32_t kTileBlocks = TileCodec<kType>::kTileCols / 64;
  static constexpr uint32_t kTurn = kSplits * kTileBlocks;
  static_assert(kStages % kTurn == 0);
  static_assert(!kSwiGlu || kRowParts == 2);
  __device__ static int Turns(int blocks) {
    return (blocks + static_cast<int>(kTurn) - 1) / static_cast<int>(kTurn);
  }
  __device__ static int BlocksInTurns(int blocks) {
    return Turns(blocks) * static_cast<int>(kTurn);
  }
};

template <typename Shape>
struct NarrowPlace {
  int matrix, strip, row, first_tile, tiles;
  __device__ NarrowPlace(const WideParams& p, int unit, int rank, int warp) {
    const int part = warp / 4 % Shape::kRowParts, row_tile = unit * Shape::kCluster + rank;
    matrix = Shape::kSwiGlu ? part : 0;
    if (Shape::kSwiGlu) {
      strip = 4 * row_tile + warp % 4;
    } else {
      while (matrix + 1 < p.matrices && row_tile >= p.matrix[matrix + 1].first_row_tile) ++matrix;
      strip =
          4 * (Shape::kRowParts * (row_tile - p.matrix[matrix].first_row_tile) + part) + warp % 4;
    }
    row = kTileRows * strip;
    strip = min(strip, p.matrix[matrix].strips - 1);  // past the end: multiplied, not stored
    first_tile = warp / 4 / Shape::kRowParts;
    tiles = (p.matrix[matrix].tiles_per_strip - first_tile + Shape::kSplits - 1) / Shape::kSplits;
  }
};

template <typename Shape>
using NarrowWeights = WeightFeed<Shape, NarrowPlace<Shape>>;

// Stages of the ring of x by their number since the kernel began.
template <typename Shape>
struct NarrowRing {
  uint8_t* data;
  uint64_t *full, *empty;

  __device__ __forceinline__ void Wait(uint32_t number) const {
    WaitFor(full + number % Shape::kStages, number / Shape::kStages % 2);
  }
  __device__ __forceinline__ uint64_t Matrix(uint32_t number) const {
    return AtomMatrix(SharedAddress(data) + number % Shape::kStages * Shape::kStageBytes);
  }
  __device__ __forceinline__ void Free(uint32_t number, int lane) const {
    if (lane < Shape::kCluster) ArriveAt(empty + number % Shape::kStages, lane);
  }
  // The turn's last tile, past the end of the strip.
  __device__ __forceinline__ void SkipTile(uint32_t number, int lane) const {
    for (uint32_t i = 0; i < Shape::kTileBlocks; ++i) {
      Wait(number + i);
      Free(number + i, lane);
    }
  }
  // One thread of the block: x, once for each unit.
  __device__ void Produce(const WideParams& p, int units, int rank) const {
    const uint32_t bytes = p.atoms * kAtomBytes, share = bytes / Shape::kCluster;
    uint32_t number = 0;
    for (int unit = 0; unit < units; ++unit) {
      const uint8_t* from = p.x + rank * share;
      for (int block = 0; block < Shape::BlocksInTurns(p.blocks);
           ++block, ++number, from += bytes) {
        const uint32_t stage = number % Shape::kStages;
        WaitFor(empty + stage, (number / Shape::kStages + 1) % 2);
        if (block >= p.blocks) {
          ArriveExpecting(full + stage, 0);
          continue;
        }
        ArriveExpecting(full + stage, bytes);
        CopyToCluster<Shape::kCluster>(data + stage * Shape::kStageBytes + rank * share, from,
                                       share, full + stage);
      }
    }
  }
};

// This warp's part of a unit whose first stage is number `first`.
template <typename Shape>
__device__ __forceinline__ void NarrowSums(NarrowWeights<Shape>& weights,
                                           const NarrowRing<Shape>& x, uint32_t first, int tiles,
                                           int lane, float (&sum)[Shape::kSums]) {
  constexpr DType T = Shape::kType;
  using Codec = TileCodec<T>;
  using Product = WarpgroupProduct<Shape::kTokens>;
  constexpr int kGroups = Codec::kTileCols / 32;
  if (tiles == 0) return;
  uint32_t a[2][8];
  const uint8_t* tile = weights.Wait();
  typename Codec::Scales scales = Codec::LoadScales(tile, lane);
  typename Codec::Codes codes = Codec::LoadCodes(tile, lane, 0);
  WideFragments<T>(codes, scales, 0, weights.zero(), a[0]);
  uint32_t number = first, before = first;
#pragma unroll 1
  for (int left = tiles; left > 0; --left) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g % 2 == 0) x.Wait(number);
      const uint64_t matrix = x.Matrix(number) + 4 * (g % 2);
      uint32_t(&now)[8] = a[g % 2];
      ProductFence();
      Product::Add(sum, now[0], now[1], now[2], now[3], matrix);
      Product::Add(sum, now[4], now[5], now[6], now[7], matrix + 2);
      ProductCommit();
      ProductWait<1>();
      if (g % 2 == 1) {
        before = number++;
      } else if (g > 0 || left < tiles) {
        x.Free(before, lane);
      }
      if (g + 1 < kGroups) {
        if ((g + 1) % Codec::kStep == 0)
          codes = Codec::LoadCodes(tile, lane, (g + 1) / Codec::kStep);
        WideFragments<T>(codes, scales, g + 1, weights.zero(), a[(g + 1) % 2]);
      } else if (left > 1) {
        number += (Shape::kSplits - 1) * Shape::kTileBlocks;
        weights.Free();
        tile = weights.Wait();
        scales = Codec::LoadScales(tile, lane);
        codes = Codec::LoadCodes(tile, lane, 0);
        WideFragments<T>(codes, scales, 0, weights.zero(), a[0]);
      }
    }
  }
  weights.Free();
  ProductWait<0>();
  x.Free(before, lane);
}

// Adds the sums of warpgroups with the same rows, in their order; the first of each then has them.
template <typename Shape>
__device__ __forceinline__ void NarrowReduce(int warp, float* exchange,
                                             float (&sum)[Shape::kSums]) {
  const int group = warp / 4, mine = static_cast<int>(threadIdx.x) % 128;
  NamedBarrier<32 * Shape::kConsumers>(1);  // what the unit before put there is read
  if (group >= Shape::kRowParts) {
    float* to = exchange + (group - Shape::kRowParts) * Shape::kSums * 128 + mine;
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) to[i * 128] = sum[i];
  }
  NamedBarrier<32 * Shape::kConsumers>(1);
  if (group >= Shape::kRowParts) return;
#pragma unroll
  for (int split = 1; split < Shape::kSplits; ++split) {
    const float* from =
        exchange + ((split - 1) * Shape::kRowParts + group) * Shape::kSums * 128 + mine;
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) sum[i] += from[i * 128];
  }
}

// The second warpgroup gives up to the first, which has gate of the same rows and stores the
// results.
template <typename Shape>
__device__ __forceinline__ void NarrowSwiGlu(const WideParams& p, int row, int warp, int lane,
                                             float* exchange, float (&sum)[Shape::kSums]) {
  const int mine = static_cast<int>(threadIdx.x) % 128, g = lane / 4, t = lane % 4;
  // Where this very warpgroup's other sums were: read by none but its own threads.
  float* up = exchange + Shape::kSums * 128 + mine;
  if (warp / 4 == 1) {
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) up[i * 128] = sum[i] * p.matrix[1].multiplier;
  }
  NamedBarrier<256>(2);
  if (warp / 4 == 1) return;
#pragma unroll
  for (int e = 0; e < Shape::kTokens / 8; ++e) {
#pragma unroll
    for (int at = 0; at < 4; ++at) {
      const int to = row + g + 8 * (at / 2), token = 8 * e + 2 * t + at % 2;
      const float gate = sum[4 * e + at] * p.matrix[0].multiplier;
      const float result = gate / (1.0f + __expf(-gate)) * up[(4 * e + at) * 128];
      if (to < p.matrix[0].rows && token < p.n)
        p.halves[token * p.ldy + to] = SaturatedHalf(result);
    }
  }
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    NarrowMatmulKernel(const __grid_constant__ WideParams p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t full[Shape::kStages], empty[Shape::kStages];
  __shared__ uint64_t weight_barriers[Shape::kConsumers * Shape::kMostSlots];
  uint8_t* shared = dynamic + (1024 - SharedAddress(dynamic) % 1024) % 1024;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  const int rank = static_cast<int>(RankInCluster());
  const int first_unit = static_cast<int>(blockIdx.x) / Shape::kCluster;
  const int step = static_cast<int>(gridDim.x) / Shape::kCluster;
  if (threadIdx.x == 0) {
    for (uint32_t i = 0; i < Shape::kStages; ++i) {
      InitBarrier(full + i, 1);
      InitBarrier(empty + i, 4 * Shape::kRowParts * Shape::kCluster);
    }
  }
  LetNextStart();
  ClusterBarrier();
  const NarrowRing<Shape> x{shared, full, empty};
  if (warp >= Shape::kConsumers) {
    GiveRegisters<24>();
    WaitForPrevious();
    if (warp == Shape::kConsumers && lane == 0) {
      x.Produce(p, (p.row_pairs - first_unit + step - 1) / step, rank);
    }
    __syncwarp();
  } else {
    TakeRegisters<112>();
    float* exchange = reinterpret_cast<float*>(shared + Shape::kRing);
    uint8_t* ring = shared + Shape::kRing + Shape::kExchange + warp * p.slots * p.slot_bytes;
    NarrowWeights<Shape> weights(p, ring, weight_barriers + warp * Shape::kMostSlots, first_unit,
                                 rank, warp, lane);
    WaitForPrevious();
    uint32_t number = 0;
    for (int unit = first_unit; unit < p.row_pairs;
         unit += step, number += Shape::BlocksInTurns(p.blocks)) {
      const NarrowPlace<Shape> place(p, unit, rank, warp);
      const WideParams::Matrix& m = p.matrix[place.matrix];
      float sum[Shape::kSums];
#pragma unroll
      for (int i = 0; i < Shape::kSums; ++i) sum[i] = 0;
      const uint32_t first = number + place.first_tile * Shape::kTileBlocks;
      NarrowSums<Shape>(weights, x, first, place.tiles, lane, sum);
      if (place.tiles < Shape::Turns(p.blocks)) {
        x.SkipTile(first + place.tiles * Shape::kTurn, lane);
      }
      NarrowReduce<Shape>(warp, exchange, sum);
      if (warp / 4 >= Shape::kRowParts) continue;
      if constexpr (Shape::kSwiGlu) {
        NarrowSwiGlu<Shape>(p, place.row, warp, lane, exchange, sum);
      } else {
        StoreSums<Shape::kTokens>(p, m, place.row, 0, lane, sum);
      }
    }
  }
  ClusterBarrier();
}

template <DType kType, int kTokens, int kRowParts, bool kSwiGlu>
absl::Status LaunchNarrow(const WideParams& p, StreamView stream) {
  using Shape = NarrowShape<kType, kTokens, kRowParts, kSwiGlu>;
  return LaunchResident<Shape>(NarrowMatmulKernel<Shape>, p, stream);
}

template <DType kType>
absl::Status LaunchNarrowType(const WideParams& p, int row_parts, bool swiglu, StreamView stream) {
  if (swiglu) {
    return p.n <= 32 ? LaunchNarrow<kType, 32, 2, true>(p, stream)
                     : LaunchNarrow<kType, 64, 2, true>(p, stream);
  }
  if (p.n > 32) return LaunchNarrow<kType, 64, 2, false>(p, stream);
  return row_parts == 1 ? LaunchNarrow<kType, 32, 1, false>(p, stream)
                        : LaunchNarrow<kType, 32, 2, false>(p, stream);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NARROW_MATMUL_CUH_
