// The narrow product's kernel (narrow_matmul.cuh): its shapes, which weights a warp multiplies, and
// the ring in shared memory that brings x.
#ifndef MILLRACE_KERNELS_NARROW_RING_CUH_
#define MILLRACE_KERNELS_NARROW_RING_CUH_

#include "kernels/cuda/block_barrier.cuh"
#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/wide_fragments.cuh"
#include "kernels/wide_matmul_params.h"

namespace millrace::cuda {

// One kernel per type: with several in one, registers do not suffice. A block has kRowParts times
// 64 weight rows, for SwiGLU pairs of 64 of gate and of up. kHalves: the two blocks of a cluster
// have the same rows, each half of the columns; else different rows, and fetch x for each other.
template <DType kTypeT, int kTokensT, int kRowPartsT, bool kHalvesT, bool kSwiGluT>
struct NarrowShape {
  static constexpr DType kType = kTypeT;
  static constexpr int kTokens = kTokensT, kRowParts = kRowPartsT;
  static constexpr bool kHalves = kHalvesT, kSwiGlu = kSwiGluT;
  static constexpr int kCluster = 2;
  static constexpr int kSharers = kHalves ? 1 : kCluster;  // blocks with the same x
  static constexpr int kSplits = 4 / kRowParts;            // warpgroups that share rows
  static constexpr int kConsumers = 16;                    // warps
  static constexpr int kThreads = 32 * kConsumers + 32;
  static constexpr int kStageBytes = kTokens * 128;  // 64 columns of x
  static constexpr uint32_t kStages = 512 / kTokens;
  static constexpr int kMostSlots = 4;
  static constexpr int kRing = static_cast<int>(kStages) * kStageBytes;
  static constexpr int kSums = kTokens / 2;  // of a thread
  // In groups of 64 rows' sums: of warpgroups that do not store, or of up's.
  static constexpr int kSent = kSwiGlu ? kRowParts / 2 : (kSplits - 1) * kRowParts;
  static constexpr int kExchange = kSent * 128 * kSums * 4;
  static constexpr int kFixedBytes = 1024 + kRing + kExchange;
  // A turn: a tile for each of the warpgroups that share rows. They work side by side, so their
  // stages alternate. A stage always serves the same warpgroups, so that they see each of its
  // phases: the ring holds whole turns.
  static constexpr uint32_t kTileBlocks = TileCodec<kType>::kTileCols / 64;
  static constexpr uint32_t kTurn = kSplits * kTileBlocks;
  static constexpr uint32_t kRingTurns = kStages / kTurn;
  static_assert(kStages % kTurn == 0);
  static_assert(!kSwiGlu || kRowParts == kSwiGluRowParts);
  static_assert(kHalves == (kSplits > 1), "sums come in where the block's own were exchanged");
};

// The columns of a block, in weight tiles: all, or the half of its rank.
template <typename Shape>
struct NarrowColumns {
  int first, tiles, turns;
  __device__ NarrowColumns(const WideParams& p, int rank) {
    const int all = (p.blocks + static_cast<int>(Shape::kTileBlocks) - 1) /
                    static_cast<int>(Shape::kTileBlocks);
    const int half = (all + 1) / 2;
    first = Shape::kHalves ? rank * half : 0;
    tiles = Shape::kHalves ? min(half, all - first) : all;
    turns = (tiles + Shape::kSplits - 1) / Shape::kSplits;
  }
};

template <typename Shape>
struct NarrowPlace {
  int matrix, strip, row, first_tile, tiles;
  __device__ NarrowPlace(const WideParams& p, int unit, int rank, int warp) {
    const int part = warp / 4 % Shape::kRowParts, split = warp / 4 / Shape::kRowParts;
    const int row_tile = Shape::kHalves ? unit : unit * Shape::kCluster + rank;
    matrix = Shape::kSwiGlu ? part % 2 : 0;
    if (Shape::kSwiGlu) {
      strip = 4 * (Shape::kRowParts / 2 * row_tile + part / 2) + warp % 4;
    } else {
      while (matrix + 1 < p.matrices && row_tile >= p.matrix[matrix + 1].first_row_tile) ++matrix;
      strip =
          4 * (Shape::kRowParts * (row_tile - p.matrix[matrix].first_row_tile) + part) + warp % 4;
    }
    row = kTileRows * strip;
    strip = min(strip, p.matrix[matrix].strips - 1);  // past the end: multiplied, not stored
    const NarrowColumns<Shape> columns(p, rank);
    first_tile = columns.first + split;
    tiles = (columns.tiles - split + Shape::kSplits - 1) / Shape::kSplits;
  }
};

template <typename Shape>
using NarrowWeights = WeightFeed<Shape, NarrowPlace<Shape>>;

// Turns are numbered since the kernel began. `full` counts the bytes of a stage, `empty` the warps
// that are done with it, of all blocks that have the same x.
template <typename Shape>
struct NarrowRing {
  uint8_t* data;  // 1024-byte aligned
  uint64_t *full, *empty;

  // A warp's stages of one turn.
  struct Turn {
    uint32_t first, parity;
    __device__ __forceinline__ uint32_t Stage(uint32_t block) const {
      return first + block * Shape::kSplits;
    }
  };
  __device__ __forceinline__ Turn At(uint32_t turn, uint32_t split) const {
    return {turn % Shape::kRingTurns * Shape::kTurn + split, turn / Shape::kRingTurns % 2};
  }
  __device__ __forceinline__ void Wait(const Turn& turn, uint32_t block) const {
    WaitFor(full + turn.Stage(block), turn.parity);
  }
  __device__ __forceinline__ uint64_t Matrix(const Turn& turn, uint32_t block) const {
    return AtomMatrix(SharedAddress(data)) + turn.Stage(block) * (Shape::kStageBytes / 16);
  }
  __device__ __forceinline__ void Free(uint32_t stage, int lane) const {
    if (lane >= Shape::kSharers) return;
    if constexpr (Shape::kSharers == 1) {
      Arrive(empty + stage);
    } else {
      ArriveAt(empty + stage, lane);
    }
  }
  // A warp that has no tile left in a unit's last turn.
  __device__ __forceinline__ void Skip(const Turn& turn, int lane) const {
    for (uint32_t block = 0; block < Shape::kTileBlocks; ++block) {
      Wait(turn, block);
      Free(turn.Stage(block), lane);
    }
  }

  // One thread of the block: x, once for each unit.
  __device__ void Produce(const WideParams& p, int units, int rank) const {
    const NarrowColumns<Shape> columns(p, rank);
    uint32_t turn = 0;
    for (int unit = 0; unit < units; ++unit) {
      for (int i = 0; i < columns.turns; ++i, ++turn) {
        const int tile = columns.first + i * Shape::kSplits;
        const int tiles = min(Shape::kSplits, columns.first + columns.tiles - tile);
        ProduceTurn(p, turn, tile, tiles, rank);
      }
    }
  }

 private:
  __device__ void ProduceTurn(const WideParams& p, uint32_t turn, int tile, int tiles,
                              int rank) const {
    const uint32_t bytes = p.atoms * kAtomBytes, share = bytes / Shape::kSharers;
    const uint32_t place = Shape::kHalves ? 0 : rank * share;
    for (uint32_t block = 0; block < Shape::kTileBlocks; ++block) {
      for (int split = 0; split < Shape::kSplits; ++split) {
        const Turn at = At(turn, split);
        const uint32_t stage = at.Stage(block);
        WaitFor(empty + stage, at.parity ^ 1);
        if (split >= tiles) {
          ArriveExpecting(full + stage, 0);
          continue;
        }
        ArriveExpecting(full + stage, bytes);
        const int64_t from = (tile + split) * int64_t{Shape::kTileBlocks} + block;
        CopyToCluster<Shape::kSharers>(data + stage * Shape::kStageBytes + place,
                                       p.x + from * bytes + place, share, full + stage);
      }
    }
  }
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NARROW_RING_CUH_
