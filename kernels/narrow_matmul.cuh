// The wide product's kernel for at most 64 rows of x (wide_matmul.cuh has the terms). Included by
// narrow_matmul_k.cu and narrow_matmul_flat.cu, compiled for sm_90a only.
//
// Reading the weights is what takes time here: sixteen warps of a block turn them into fragments,
// in four warpgroups. Warpgroups with the same rows take turns at the weight tiles along the
// columns, and the first adds what the others have. One warp more fetches x. Blocks of a cluster
// either fetch x for each other, or divide the columns of the same rows, and the first block adds.
#ifndef MILLRACE_KERNELS_NARROW_MATMUL_CUH_
#define MILLRACE_KERNELS_NARROW_MATMUL_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/narrow_ring.cuh"
#include "kernels/wide_launch.cuh"
#include "kernels/wide_matmul_epilogue.cuh"

namespace millrace::cuda {

// This warp's part of a unit whose first turn is number `turn`.
template <typename Shape>
__device__ __forceinline__ void NarrowSums(NarrowWeights<Shape>& weights,
                                           const NarrowRing<Shape>& x, uint32_t turn,
                                           uint32_t split, int tiles, int lane,
                                           float (&sum)[Shape::kSums]) {
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
  uint32_t before = 0;  // the stage whose products may still be under way
#pragma unroll 1
  for (int left = tiles; left > 0; --left, ++turn) {
    const auto at = x.At(turn, split);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g % 2 == 0) x.Wait(at, g / 2);
      const uint64_t matrix = x.Matrix(at, g / 2) + 4 * (g % 2);
      uint32_t(&now)[8] = a[g % 2];
      ProductFence();
      Product::Add(sum, now[0], now[1], now[2], now[3], matrix);
      Product::Add(sum, now[4], now[5], now[6], now[7], matrix + 2);
      ProductCommit();
      ProductWait<1>();
      if (g % 2 == 1) {
        before = at.Stage(g / 2);
      } else if (g > 0 || left < tiles) {
        x.Free(before, lane);
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

// Where the second block's sums come in: `ready` counts the first block's warps that have read what
// stood in `exchange`, `come` the bytes.
struct NarrowJoint {
  float* exchange;
  uint64_t *ready, *come;
};

// The first kRowParts warpgroups of both blocks: the first block's add what the second's have.
template <typename Shape>
__device__ __forceinline__ void NarrowJoin(const NarrowJoint& joint, int rank, int warp, int lane,
                                           uint32_t parity, float (&sum)[Shape::kSums]) {
  constexpr uint32_t kBytes = Shape::kRowParts * 128 * Shape::kSums * 4;
  const int mine = static_cast<int>(threadIdx.x) % 128;
  float* place = joint.exchange + warp / 4 * Shape::kSums * 128 + 4 * mine;
  if (rank == 1) {
    WaitFor(joint.ready, parity);
#pragma unroll
    for (int i = 0; i < Shape::kSums; i += 4) {
      SendFloat4(place + 128 * i, joint.come, 0,
                 make_float4(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]));
    }
    return;
  }
  __syncwarp();
  if (lane == 0) ReleaseAt(joint.ready, 1);
  if (threadIdx.x == 0) ArriveExpecting(joint.come, kBytes);
  WaitFor(joint.come, parity);
#pragma unroll
  for (int i = 0; i < Shape::kSums; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(place + 128 * i);
    sum[i] += v.x;
    sum[i + 1] += v.y;
    sum[i + 2] += v.z;
    sum[i + 3] += v.w;
  }
}

// Every second warpgroup gives up to the one before, which has gate of the same rows and stores
// the results.
template <typename Shape>
__device__ __forceinline__ void NarrowSwiGlu(const WideParams& p, int row, int warp, int lane,
                                             float* exchange, float (&sum)[Shape::kSums]) {
  const int mine = static_cast<int>(threadIdx.x) % 128, g = lane / 4, t = lane % 4;
  const int pair = warp / 8;
  float* up = exchange + pair * Shape::kSums * 128 + mine;
  NamedBarrier<256>(2 + pair);  // the unit before's are read
  if (warp / 4 % 2 == 1) {
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) up[i * 128] = sum[i] * p.matrix[1].multiplier;
  }
  NamedBarrier<256>(2 + pair);
  if (warp / 4 % 2 == 1) return;
#pragma unroll
  for (int e = 0; e < Shape::kTokens / 8; ++e) {
    __half v[2][2];
#pragma unroll
    for (int at = 0; at < 4; ++at) {
      const int to = row + g + 8 * (at / 2), token = 8 * e + 2 * t + at % 2;
      const float gate = sum[4 * e + at] * p.matrix[0].multiplier;
      const float result = gate / (1.0f + __expf(-gate)) * up[(4 * e + at) * 128];
      const bool inside = to < p.matrix[0].rows;
      v[at / 2][at % 2] = SaturatedHalf(inside ? result : 0.0f);
      if (p.halves != nullptr && inside && token < p.n) {
        p.halves[token * p.ldy + to] = v[at / 2][at % 2];
      }
    }
    if (p.halves == nullptr) StorePacked(p, row, 8 * e + 2 * t, lane, v);
  }
}

// The consumer warps: all units of the block.
template <typename Shape>
__device__ __forceinline__ void NarrowConsume(const WideParams& p, NarrowWeights<Shape>& weights,
                                              const NarrowRing<Shape>& x, const NarrowJoint& joint,
                                              int first_unit, int step, int rank, int warp,
                                              int lane) {
  const int turns = NarrowColumns<Shape>(p, rank).turns, split = warp / 4 / Shape::kRowParts;
  uint32_t turn = 0, parity = 0;
  for (int unit = first_unit; unit < p.row_pairs; unit += step, turn += turns, parity ^= 1) {
    const NarrowPlace<Shape> place(p, unit, rank, warp);
    float sum[Shape::kSums];
#pragma unroll
    for (int i = 0; i < Shape::kSums; ++i) sum[i] = 0;
    NarrowSums<Shape>(weights, x, turn, split, place.tiles, lane, sum);
    if (place.tiles < turns) x.Skip(x.At(turn + turns - 1, split), lane);
    if constexpr (Shape::kSplits > 1) NarrowReduce<Shape>(warp, joint.exchange, sum);
    if (warp / 4 >= Shape::kRowParts) continue;
    if constexpr (Shape::kHalves) {
      NarrowJoin<Shape>(joint, rank, warp, lane, parity, sum);
      if (rank == 1) continue;
    }
    if constexpr (Shape::kSwiGlu) {
      NarrowSwiGlu<Shape>(p, place.row, warp, lane, joint.exchange, sum);
    } else {
      StoreSums<Shape::kTokens>(p, p.matrix[place.matrix], place.row, 0, lane, sum);
    }
  }
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    NarrowMatmulKernel(const __grid_constant__ WideParams p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ uint64_t full[Shape::kStages], empty[Shape::kStages], ready, come;
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
      InitBarrier(empty + i, 4 * Shape::kRowParts * Shape::kSharers);
    }
    InitBarrier(&ready, 4 * Shape::kRowParts);
    InitBarrier(&come, 1);
  }
  LetNextStart();
  ClusterBarrier();
  const NarrowRing<Shape> x{shared, full, empty};
  if (warp >= Shape::kConsumers) {
    WaitForPrevious();
    if (lane == 0) x.Produce(p, (p.row_pairs - first_unit + step - 1) / step, rank);
    __syncwarp();
  } else {
    const NarrowJoint joint = {reinterpret_cast<float*>(shared + Shape::kRing), &ready, &come};
    uint8_t* ring = shared + Shape::kRing + Shape::kExchange + warp * p.slots * p.slot_bytes;
    NarrowWeights<Shape> weights(p, ring, weight_barriers + warp * Shape::kMostSlots, first_unit,
                                 rank, warp, lane);
    WaitForPrevious();
    NarrowConsume<Shape>(p, weights, x, joint, first_unit, step, rank, warp, lane);
  }
  // What the other block still sends here arrives before this one ends.
  ClusterBarrier();
}

template <DType kType, int kTokens, int kRowParts, bool kHalves, bool kSwiGlu>
absl::Status LaunchNarrow(const WideParams& p, StreamView stream) {
  static_assert(kHalves == NarrowHalves(kRowParts));
  using Shape = NarrowShape<kType, kTokens, kRowParts, kHalves, kSwiGlu>;
  return LaunchResident<Shape>(NarrowMatmulKernel<Shape>, p, stream);
}

template <DType kType, int kTokens>
absl::Status LaunchNarrowTokens(const WideParams& p, bool swiglu, StreamView stream) {
  if (swiglu) return LaunchNarrow<kType, kTokens, kSwiGluRowParts, false, true>(p, stream);
  if constexpr (kTokens <= 32) {
    if (p.row_parts == 1) return LaunchNarrow<kType, kTokens, 1, true, false>(p, stream);
  }
  return p.row_parts == 2 ? LaunchNarrow<kType, kTokens, 2, true, false>(p, stream)
                          : LaunchNarrow<kType, kTokens, 4, false, false>(p, stream);
}

template <DType kType>
absl::Status LaunchNarrowType(const WideParams& p, bool swiglu, StreamView stream) {
  return p.n <= 32 ? LaunchNarrowTokens<kType, 32>(p, swiglu, stream)
                   : LaunchNarrowTokens<kType, 64>(p, swiglu, stream);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NARROW_MATMUL_CUH_
