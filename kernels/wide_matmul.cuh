// The kernel behind WideMatmul. Included by one .cu per width, compiled for sm_90a only.
//
// A block multiplies a tile of 128 weight rows with kTokens rows of x: two warpgroups of 64 weight
// rows keep the sums in registers, a thread of a third brings x through a ring in shared memory.
// The two blocks of a cluster have different weight rows and the same rows of x: each fetches half
// of them for both. Every consumer warp copies the tiles of its own strip of sixteen weight rows
// into a ring of its own (warp_copy.cuh), turns 32 columns into f16 fragments while the tensor
// cores work on the 32 before, and hands them over in registers. Blocks stay for all tiles of the
// product, so that the next tile's bytes are on their way while the sums of the last are stored.
#ifndef MILLRACE_KERNELS_WIDE_MATMUL_CUH_
#define MILLRACE_KERNELS_WIDE_MATMUL_CUH_

#include "kernels/cuda/block_barrier.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/wide_fragments.cuh"
#include "kernels/wide_launch.cuh"
#include "kernels/wide_matmul_epilogue.cuh"
#include "kernels/wide_matmul_params.h"

namespace millrace::cuda {

// Tiles of x's rows that are multiplied with all weights before the next ones: with as many, what
// the blocks read at one time comes from device memory about once, and the most of it from the
// cache.
inline constexpr int kTokensTogether = 4;

// Which weights and which rows of x: tile `unit` of the launch, as one warp sees it.
template <typename Shape>
struct WidePlace {
  int matrix, strip, row;     // row: the strip's first, in its matrix
  int first_tile = 0, tiles;  // of the strip
  int token;                  // first row of x
  __device__ WidePlace(const WideParams& p, int unit, int rank, int warp) {
    const int group = unit / (p.row_pairs * kTokensTogether) * kTokensTogether;
    const int in_group = unit - group * p.row_pairs;
    const int width = min(kTokensTogether, p.token_tiles - group);
    token = (group + in_group % width) * Shape::kTokens;
    const int row_tile = in_group / width * Shape::kCluster + rank;
    if (Shape::kSwiGlu) {
      matrix = warp / 4;
      strip = 4 * row_tile + warp % 4;
    } else {
      matrix = 0;
      while (matrix + 1 < p.matrices && row_tile >= p.matrix[matrix + 1].first_row_tile) ++matrix;
      strip = 8 * (row_tile - p.matrix[matrix].first_row_tile) + warp;
    }
    row = kTileRows * strip;
    strip = min(strip, p.matrix[matrix].strips - 1);  // past the end: multiplied, not stored
    tiles = p.matrix[matrix].tiles_per_strip;
  }
};

template <typename Shape>
using WideWeights = WeightFeed<Shape, WidePlace<Shape>>;

// The ring of x: `full` counts the bytes of a stage, `empty` the warps of the cluster that are done
// with it.
template <typename Shape>
struct WideRing {
  uint8_t* data;  // 1024-byte aligned
  uint64_t *full, *empty;
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Next() {
    if (++stage == Shape::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ uint64_t Matrix() const {
    return AtomMatrix(SharedAddress(data) + stage * Shape::kStageBytes);
  }
  // A consumer warp's; the stage before this one.
  __device__ __forceinline__ void FreeBefore(int lane) {
    const int before = stage == 0 ? Shape::kStages - 1 : stage - 1;
    if (lane < Shape::kCluster) ArriveAt(empty + before, lane);
  }

  // One thread of the block.
  __device__ void Produce(const WideParams& p, int first_unit, int rank) {
    constexpr int kAtoms = Shape::kTokens / 8, kShare = kAtoms / Shape::kCluster;
    const int step = static_cast<int>(gridDim.x) / Shape::kCluster;
    for (int unit = first_unit; unit < p.row_pairs * p.token_tiles; unit += step) {
      const int first = WidePlace<Shape>(p, unit, rank, 0).token / 8;
      const int all = min(p.atoms - first, kAtoms);
      const int mine = min(max(all - rank * kShare, 0), kShare);
      const uint8_t* from = p.x + static_cast<int64_t>(first + rank * kShare) * kAtomBytes;
      for (int block = 0; block < p.blocks; ++block) {
        WaitFor(empty + stage, parity ^ 1);
        ArriveExpecting(full + stage, all * kAtomBytes);
        if (mine > 0) {
          uint8_t* to = data + stage * Shape::kStageBytes + rank * kShare * kAtomBytes;
          CopyToCluster<Shape::kCluster>(to, from, mine * kAtomBytes, full + stage);
        }
        from += static_cast<int64_t>(p.atoms) * kAtomBytes;
        Next();
      }
    }
  }
};

// One tile's sums: `tiles` weight tiles of this warp's strip against the ring.
template <DType T, typename Shape>
__device__ __forceinline__ void WideSums(WideWeights<Shape>& weights, WideRing<Shape>& x, int tiles,
                                         int lane, float (&sum)[Shape::kTokens / 2]) {
  using Codec = TileCodec<T>;
  using Product = WarpgroupProduct<Shape::kTokens>;
  constexpr int kGroups = Codec::kTileCols / 32;
#pragma unroll
  for (int i = 0; i < Shape::kTokens / 2; ++i) sum[i] = 0;
  uint32_t a[2][8];
  const uint8_t* tile = weights.Wait();
  typename Codec::Scales scales = Codec::LoadScales(tile, lane);
  typename Codec::Codes codes = Codec::LoadCodes(tile, lane, 0);
  WideFragments<T>(codes, scales, 0, weights.zero(), a[0]);
#pragma unroll 1
  for (int left = tiles; left > 0; --left) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g % 2 == 0) WaitFor(x.full + x.stage, x.parity);
      const uint64_t matrix = x.Matrix() + 4 * (g % 2);
      uint32_t(&now)[8] = a[g % 2];
      ProductFence();
      Product::Add(sum, now[0], now[1], now[2], now[3], matrix);
      Product::Add(sum, now[4], now[5], now[6], now[7], matrix + 2);
      ProductCommit();
      ProductWait<1>();
      // The products before these are done: their fragments and, at its start, a stage are free.
      if (g % 2 == 1) {
        x.Next();
      } else if (g > 0 || left < tiles) {
        x.FreeBefore(lane);
      }
      if (g + 1 < kGroups) {
        if ((g + 1) % Codec::kStep == 0)
          codes = Codec::LoadCodes(tile, lane, (g + 1) / Codec::kStep);
        WideFragments<T>(codes, scales, g + 1, weights.zero(), a[(g + 1) % 2]);
      } else if (left > 1) {
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
  x.FreeBefore(lane);
}

template <typename Shape>
__device__ __forceinline__ void WideSumsOf(DType dtype, WideWeights<Shape>& weights,
                                           WideRing<Shape>& x, int tiles, int lane,
                                           float (&sum)[Shape::kTokens / 2]) {
  if constexpr (Shape::kKTypes) {
    switch (dtype) {
      case DType::kQ4_K:
        return WideSums<DType::kQ4_K>(weights, x, tiles, lane, sum);
      case DType::kQ5_K:
        return WideSums<DType::kQ5_K>(weights, x, tiles, lane, sum);
      case DType::kQ6_K:
        return WideSums<DType::kQ6_K>(weights, x, tiles, lane, sum);
      case DType::kQ3_K:
        return WideSums<DType::kQ3_K>(weights, x, tiles, lane, sum);
      case DType::kQ2_K:
        return WideSums<DType::kQ2_K>(weights, x, tiles, lane, sum);
      default:
        return;
    }
  } else {
    switch (dtype) {
      case DType::kF16:
        return WideSums<DType::kF16>(weights, x, tiles, lane, sum);
      case DType::kQ8_0:
        return WideSums<DType::kQ8_0>(weights, x, tiles, lane, sum);
      case DType::kQ4_0:
        return WideSums<DType::kQ4_0>(weights, x, tiles, lane, sum);
      case DType::kQ4_1:
        return WideSums<DType::kQ4_1>(weights, x, tiles, lane, sum);
      case DType::kQ5_0:
        return WideSums<DType::kQ5_0>(weights, x, tiles, lane, sum);
      case DType::kQ5_1:
        return WideSums<DType::kQ5_1>(weights, x, tiles, lane, sum);
      default:
        return;
    }
  }
}

// kKTypes: tiles of 256 columns, or all other types. One kernel for all would have too few
// registers.
template <int kTokensT, bool kKTypesT, bool kSwiGluT>
struct WideShape {
  static constexpr int kTokens = kTokensT;
  static constexpr bool kKTypes = kKTypesT;
  static constexpr bool kSwiGlu = kSwiGluT;
  static constexpr int kCluster = 2;
  static constexpr int kConsumers = 8;  // warps
  static constexpr int kSplits = 1;
  static constexpr int kThreads = 32 * kConsumers + 128;  // and a warpgroup that fetches x
  static constexpr int kStageBytes = kTokens * 128;
  static constexpr int kStages = kTokens > 192 ? 4 : 6;
  static constexpr int kMostSlots = 4;
  static constexpr int kRing = kStages * kStageBytes;
  static constexpr int kExchange = kSwiGlu ? kWideExchangeBytes : 0;
  // Dynamic shared memory but the weights' rings; a kilobyte to align it.
  static constexpr int kFixedBytes = 1024 + kRing + kExchange;
  static_assert(kTokens % 16 == 0);
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    WideMatmulKernel(const __grid_constant__ WideParams p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t full[Shape::kStages], empty[Shape::kStages];
  __shared__ uint64_t weight_barriers[Shape::kConsumers * Shape::kMostSlots];
  uint8_t* shared = dynamic + (1024 - SharedAddress(dynamic) % 1024) % 1024;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  const int rank = static_cast<int>(RankInCluster());
  const int first_unit = static_cast<int>(blockIdx.x) / Shape::kCluster;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      InitBarrier(full + i, 1);
      InitBarrier(empty + i, Shape::kConsumers * Shape::kCluster);
    }
  }
  LetNextStart();
  ClusterBarrier();
  WideRing<Shape> x{shared, full, empty};
  if (warp >= Shape::kConsumers) {
    GiveRegisters<24>();
    WaitForPrevious();
    if (warp == Shape::kConsumers && lane == 0) x.Produce(p, first_unit, rank);
    __syncwarp();
  } else {
    TakeRegisters<240>();
    uint8_t* ring = shared + Shape::kRing + Shape::kExchange + warp * p.slots * p.slot_bytes;
    WideWeights<Shape> weights(p, ring, weight_barriers + warp * Shape::kMostSlots, first_unit,
                               rank, warp, lane);
    WaitForPrevious();
    const int step = static_cast<int>(gridDim.x) / Shape::kCluster;
    for (int unit = first_unit; unit < p.row_pairs * p.token_tiles; unit += step) {
      const WidePlace<Shape> place(p, unit, rank, warp);
      const WideParams::Matrix& m = p.matrix[place.matrix];
      float sum[Shape::kTokens / 2];
      WideSumsOf(m.dtype, weights, x, m.tiles_per_strip, lane, sum);
      if constexpr (Shape::kSwiGlu) {
        StoreSwiGlu<Shape::kTokens>(p, place.row, place.token, warp, lane,
                                    reinterpret_cast<float*>(shared + Shape::kRing), sum);
      } else {
        StoreSums<Shape::kTokens>(p, m, place.row, place.token, lane, sum);
      }
    }
  }
  // What the other block still sends here arrives before this one ends.
  ClusterBarrier();
}

template <int kTokens, bool kKTypes, bool kSwiGlu>
absl::Status LaunchWide(const WideParams& p, StreamView stream) {
  using Shape = WideShape<kTokens, kKTypes, kSwiGlu>;
  return LaunchResident<Shape>(WideMatmulKernel<Shape>, p, stream);
}

template <int kTokens>
absl::Status LaunchWideTokens(const WideParams& p, bool k_types, bool swiglu, StreamView stream) {
  if (k_types) {
    return swiglu ? LaunchWide<kTokens, true, true>(p, stream)
                  : LaunchWide<kTokens, true, false>(p, stream);
  }
  return swiglu ? LaunchWide<kTokens, false, true>(p, stream)
                : LaunchWide<kTokens, false, false>(p, stream);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_MATMUL_CUH_
