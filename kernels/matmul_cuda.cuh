// The kernel behind SmallMatmul, and its launch for one weight type. Included by one .cu per type.
//
// A block owns kTiles strips of sixteen rows; its warps divide the columns among them, each bringing
// its weights into a private ring in shared memory with asynchronous copies, kStages deep, begun
// before the kernel waits for its predecessor. Every product is one tensor core instruction over
// sixteen rows, sixteen columns and eight activation rows: one to eight activation rows cost the same.
// Weights are the stream that must never pause; activations come from the caches.
#ifndef MILLRACE_KERNELS_MATMUL_CUDA_CUH_
#define MILLRACE_KERNELS_MATMUL_CUDA_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile_codec.cuh"
#include "kernels/cuda/warp_copy.cuh"
#include "kernels/matmul_cuda.h"
#include "kernels/matmul_epilogue.cuh"
#include "proto/status_macros.h"

namespace millrace::cuda {

// How the kernel is cut for a number of activation rows. SwiGLU: with two teams one takes gate's strips
// and one up's; with one, the first half of each warp's strips is gate's.
template <int kTilesT, int kEightsT, bool kOneT, bool kSwiGluT>
struct SmallMatmulShape {
  static constexpr int kTiles = kTilesT;    // strips of a warp
  static constexpr int kEights = kEightsT;  // activation rows / 8
  static constexpr bool kOne = kOneT;       // a single activation row
  static constexpr bool kSwiGlu = kSwiGluT;
  static constexpr int kWarps = 8;
  static constexpr int kTeams = kSwiGlu && kTiles == 1 ? 2 : 1;  // of warps with different strips
  static constexpr int kTeamWarps = kWarps / kTeams;             // share a strip's columns
  // Strips of each matrix that a block finishes.
  static constexpr int kBlockStrips = kSwiGlu && kTeams == 1 ? kTiles / 2 : kTiles;
  static constexpr int kColumns = kOne ? 1 : 8 * kEights;
  static constexpr int kMostRows = kOne ? 1 : kTiles == 1 ? 4 : 8 * kEights;
};

template <DType T, typename Shape>
struct SmallMatmulTraits {
  using Codec = TileCodec<T>;
  // Consecutive tiles copied at a time: about 2 KiB of each strip.
  static constexpr int kTilesPerStage = Codec::kTileBytes >= 1300 ? 1 : 2304 / Codec::kTileBytes;
  static constexpr int kTileStage = kTilesPerStage * Codec::kTileBytes;  // bytes of one strip
  static constexpr int kStageBytes = Shape::kTiles * kTileStage;
  // Four where three blocks then still find room on a multiprocessor of 228 KiB and a single row of
  // activations leaves the first-level cache little to do.
  static constexpr int kStages =
      Shape::kTiles > 2 ? 2 : Shape::kOne && Shape::kTiles == 1 && kStageBytes <= 2304 ? 4 : 3;
  static constexpr int kRingStage = Shape::kWarps * kStageBytes;
  static constexpr int kReduce = Shape::kWarps * Shape::kTiles * 16 * Shape::kColumns * 4;
  static constexpr int kStatic = 1024;  // the barriers, and what the system keeps of each block
  // The most stages up to kStages within `limit` bytes; 0: it takes more in any case.
  static int StagesWithin(int limit) {
    if (kReduce + kStatic > limit) return 0;
    const int stages = (limit - kStatic) / kRingStage;
    return stages < kStages ? stages : kStages;
  }
  static int SharedBytes(int stages) {
    return stages * kRingStage > kReduce ? stages * kRingStage : kReduce;
  }
};

template <DType T, typename Shape>
class SmallMatmulWarp {
 public:
  using Traits = SmallMatmulTraits<T, Shape>;
  using Codec = TileCodec<T>;

  __device__ SmallMatmulWarp(const SmallMatmulParams& p, uint8_t* shared, uint64_t* barriers)
      : p_(p), lane_(threadIdx.x % 32), in_block_(WarpInBlock()),
        warp_(in_block_ % Shape::kTeamWarps),
        ring_(shared + in_block_ * p.stages * Traits::kStageBytes),
        copy_(barriers + in_block_ * Traits::kStages, lane_, p.stages) {
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
      const bool second = Shape::kTeams == 2 ? in_block_ >= Shape::kTeamWarps
                                             : m >= Shape::kBlockStrips;
      const int strip = min(static_cast<int>(blockIdx.x) * Shape::kBlockStrips + m % Shape::kBlockStrips,
                            p.strips - 1);
      strip_[m] = (second ? p.up : p.w) +
                  static_cast<int64_t>(strip) * p.tiles_per_strip * Codec::kTileBytes;
#pragma unroll
      for (int e = 0; e < Shape::kEights; ++e) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum_[m][e][i] = odd_[m][e % kOdd][i] = 0;
      }
    }
  }

  __device__ int stages() const {
    return (p_.tiles_per_strip + Traits::kTilesPerStage - 1) / Traits::kTilesPerStage;
  }

  // Begins copying this warp's i-th stage, if there is one, into a slot of the ring.
  __device__ __forceinline__ void Fetch(int i, int slot_index) {
    const int first = (warp_ + Shape::kTeamWarps * i) * Traits::kTilesPerStage;
    if (first < p_.tiles_per_strip) {
      const int tiles = min(Traits::kTilesPerStage, p_.tiles_per_strip - first);
      const uint32_t bytes = tiles * Codec::kTileBytes;
      uint8_t* slot = ring_ + slot_index * Traits::kStageBytes;
      copy_.Begin(slot_index, Shape::kTiles * bytes);
#pragma unroll
      for (int m = 0; m < Shape::kTiles; ++m) {
        copy_.Copy(slot_index, slot + m * Traits::kTileStage,
                   strip_[m] + static_cast<int64_t>(first) * Codec::kTileBytes, bytes);
      }
    }
    copy_.End();
  }

  __device__ void Run() {
    const int mine = (stages() - warp_ + Shape::kTeamWarps - 1) / Shape::kTeamWarps;
    int slot = 0;
    uint32_t parity = 0;
    for (int i = 0; i < mine; ++i) {
      copy_.Wait(slot, parity);
      const int first = (warp_ + Shape::kTeamWarps * i) * Traits::kTilesPerStage;
#pragma unroll 1
      for (int tile = 0; tile < Traits::kTilesPerStage; ++tile) {
        if (first + tile < p_.tiles_per_strip) {
          Multiply(ring_ + slot * Traits::kStageBytes + tile * Codec::kTileBytes,
                   (first + tile) * Codec::kTileCols);
        }
      }
      __syncwarp();
      Fetch(i + p_.stages, slot);
      if (++slot == p_.stages) {
        slot = 0;
        parity ^= 1;
      }
    }
  }

  // Partial sums to sums[kWarps][kColumns][16 * kTiles].
  __device__ void Store(float* sums) const {
    const int g = lane_ / 4, t = lane_ % 4;
    float* mine = sums + in_block_ * Shape::kColumns * 16 * Shape::kTiles;
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int e = 0; e < Shape::kEights; ++e) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = 16 * m + g + 8 * (i / 2), column = 8 * e + 2 * t + i % 2;
          if (Shape::kOne && column != 0) continue;
          const float v = sum_[m][e][i] + (kTwoSums ? odd_[m][e % kOdd][i] : 0);
          mine[column * 16 * Shape::kTiles + row] = v;
        }
      }
    }
  }

 private:
  // One tile of each strip, columns [k, k + kTileCols).
  __device__ __forceinline__ void Multiply(const uint8_t* tile, int k) {
    typename Codec::Scales scales[Shape::kTiles];
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
      scales[m] = Codec::LoadScales(tile + m * Traits::kTileStage, lane_);
    }
#pragma unroll
    for (int step = 0; step < Codec::kTileCols / 32 / Codec::kStep; ++step) {
      typename Codec::Codes codes[Shape::kTiles];
#pragma unroll
      for (int m = 0; m < Shape::kTiles; ++m) {
        codes[m] = Codec::LoadCodes(tile + m * Traits::kTileStage, lane_, step);
      }
#pragma unroll
      for (int j = 0; j < Codec::kStep; ++j) {
        const int column = k + 32 * (step * Codec::kStep + j);
        uint4 b[Shape::kEights];
#pragma unroll
        for (int e = 0; e < Shape::kEights; ++e) b[e] = Activations(e, column);
#pragma unroll
        for (int m = 0; m < Shape::kTiles; ++m) {
          uint32_t a[8];
          Codec::Fragments(codes[m], scales[m], step, j, a);
#pragma unroll
          for (int e = 0; e < Shape::kEights; ++e) {
            MmaF16(sum_[m][e], a[0], a[1], a[2], a[3], b[e].x, b[e].y);
            MmaF16(kTwoSums ? odd_[m][e % kOdd] : sum_[m][e], a[4], a[5], a[6], a[7], b[e].z,
                   b[e].w);
          }
        }
      }
    }
  }

  // Activation row 8e + g (the last one where there are fewer: what it gives is not stored), columns
  // [column + 8t, column + 8t + 8); zeros past the last column.
  __device__ __forceinline__ uint4 Activations(int e, int column) const {
    const int row = Shape::kOne ? 0 : min(8 * e + lane_ / 4, p_.n - 1);
    if (Codec::kTileCols < 256 && column >= p_.cols) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(p_.x + row * p_.ldx + column + 8 * (lane_ % 4));
  }

  // The warp's number, the same register for all its lanes.
  __device__ static int WarpInBlock() {
    return __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  }
  // One strip and eight rows make one chain of products, each waiting for the one before: cut in two.
  static constexpr bool kTwoSums = Shape::kTiles * Shape::kEights == 1;
  static constexpr int kOdd = kTwoSums ? Shape::kEights : 1;

  const SmallMatmulParams& p_;
  const int lane_, in_block_, warp_;
  uint8_t* const ring_;
  WarpCopy<Traits::kStages> copy_;
  const uint8_t* strip_[Shape::kTiles];
  float sum_[Shape::kTiles][Shape::kEights][4];
  float odd_[Shape::kTiles][kOdd][4];
};

template <DType T, typename Shape>
__global__ void __launch_bounds__(32 * Shape::kWarps, Shape::kTiles* Shape::kEights == 1   ? 3
                                                  : Shape::kTiles * Shape::kEights <= 2 ? 2
                                                                                        : 1)
    SmallMatmulKernel(const __grid_constant__ SmallMatmulParams p) {
  using Traits = SmallMatmulTraits<T, Shape>;
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t barriers[Shape::kWarps * Traits::kStages];
  // Who follows reads the same input: it must not start before that is there.
  if (!p.leads) LetNextStart();
  SmallMatmulWarp<T, Shape> warp(p, shared, barriers);
#pragma unroll
  for (int i = 0; i < Traits::kStages; ++i) {
    if (i < p.stages) warp.Fetch(i, i);
  }
  float* sums = reinterpret_cast<float*>(shared);
  if constexpr (Shape::kEights == 1) {
    __shared__ typename FewColumnsEpilogue<Shape>::Shared few;
    FewColumnsEpilogue<Shape> epilogue(p);
    if (!p.follows) WaitForPrevious();
    if (p.leads) LetNextStart();
    epilogue.Load(p);
    warp.Run();
    epilogue.Publish(p, few);
    __syncthreads();
    warp.Store(sums);
    __syncthreads();
    epilogue.Finish(p, sums, few);
  } else {
    if (!p.follows) WaitForPrevious();
    if (p.leads) LetNextStart();
    warp.Run();
    __syncthreads();
    warp.Store(sums);
    __syncthreads();
    Epilogue<Shape>::FinishMany(p, sums);
  }
  if (p.follows) WaitForPrevious();
}

// Bytes of shared memory that a block on the current device may have.
inline absl::StatusOr<int> SharedLimit() {
  int device = 0, bytes = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  return bytes;
}

template <DType T, typename Shape>
absl::Status LaunchSmallMatmul(SmallMatmulParams p, int limit, StreamView stream) {
  using Traits = SmallMatmulTraits<T, Shape>;
  const auto kernel = SmallMatmulKernel<T, Shape>;
  p.stages = Traits::StagesWithin(limit);
  if (p.stages == 0) return absl::UnimplementedError("SmallMatmul: too little shared memory");
  const int shared = Traits::SharedBytes(p.stages);
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  const int blocks = (p.strips + Shape::kBlockStrips - 1) / Shape::kBlockStrips;
  return Launch(kernel, static_cast<unsigned>(blocks), 32 * Shape::kWarps,
                static_cast<size_t>(shared), stream, p);
}

// Strips of a warp for up to eight rows, without SwiGLU those of a block. Types that need little
// arithmetic want the most bytes under way, the others the most warps.
constexpr int FewRowsTiles(DType dtype, bool swiglu, int n) {
  if (n == 1) return dtype == DType::kF16 || (dtype == DType::kQ8_0 && swiglu) ? 2 : 1;
  return n <= 4 ? 1 : 2;
}

// Blocks that a product of up to eight rows runs on.
constexpr int SmallMatmulBlocks(DType dtype, int64_t rows, int n) {
  const int64_t block_rows = int64_t{kTileRows} * FewRowsTiles(dtype, false, n);
  return static_cast<int>((rows + block_rows - 1) / block_rows);
}

template <DType T, bool kSwiGlu>
absl::Status RunSmallMatmul(SmallMatmulParams p, StreamView stream) {
  using Four = SmallMatmulShape<4, 4, false, kSwiGlu>;
  using Eight = SmallMatmulShape<2, 8, false, kSwiGlu>;
  MILLRACE_ASSIGN_OR_RETURN(const int limit, SharedLimit());
  if (p.n == 1) {
    constexpr int kTiles = FewRowsTiles(T, kSwiGlu, 1);
    return LaunchSmallMatmul<T, SmallMatmulShape<kTiles, 1, true, kSwiGlu>>(p, limit, stream);
  }
  if (p.n <= 4) return LaunchSmallMatmul<T, SmallMatmulShape<1, 1, false, kSwiGlu>>(p, limit, stream);
  if (p.n <= 8) return LaunchSmallMatmul<T, SmallMatmulShape<2, 1, false, kSwiGlu>>(p, limit, stream);
  if (p.n <= 16) return LaunchSmallMatmul<T, SmallMatmulShape<2, 2, false, kSwiGlu>>(p, limit, stream);
  if (p.n <= 32 && SmallMatmulTraits<T, Four>::StagesWithin(limit) > 0) {
    return LaunchSmallMatmul<T, Four>(p, limit, stream);
  }
  if (SmallMatmulTraits<T, Eight>::StagesWithin(limit) > 0) {
    return LaunchSmallMatmul<T, Eight>(p, limit, stream);
  }
  // Sixteen rows at a time: the weights are read again for each.
  for (int rows = p.n; rows > 0; rows -= 16) {
    p.n = rows < 16 ? rows : 16;
    MILLRACE_RETURN_IF_ERROR((LaunchSmallMatmul<T, SmallMatmulShape<2, 2, false, kSwiGlu>>(
        p, limit, stream)));
    p.x += 16 * p.ldx;
    if (kSwiGlu) {
      p.out += 16 * p.ldy;
    } else {
      p.y += 16 * p.ldy;
    }
  }
  return absl::OkStatus();
}

// One pair of functions per type, each defined in a .cu of its own.
#define MILLRACE_DECLARE_SMALL_MATMUL(T)                                                     \
  absl::Status SmallMatmul##T(const SmallMatmulParams& p, bool swiglu, StreamView stream);
MILLRACE_DECLARE_SMALL_MATMUL(F16)
MILLRACE_DECLARE_SMALL_MATMUL(Q8_0)
MILLRACE_DECLARE_SMALL_MATMUL(Q4_0)
MILLRACE_DECLARE_SMALL_MATMUL(Q4_1)
MILLRACE_DECLARE_SMALL_MATMUL(Q5_0)
MILLRACE_DECLARE_SMALL_MATMUL(Q5_1)
MILLRACE_DECLARE_SMALL_MATMUL(Q4_K)
MILLRACE_DECLARE_SMALL_MATMUL(Q5_K)
MILLRACE_DECLARE_SMALL_MATMUL(Q6_K)
MILLRACE_DECLARE_SMALL_MATMUL(Q3_K)
MILLRACE_DECLARE_SMALL_MATMUL(Q2_K)
#undef MILLRACE_DECLARE_SMALL_MATMUL

#define MILLRACE_DEFINE_SMALL_MATMUL(T)                                                      \
  absl::Status SmallMatmul##T(const SmallMatmulParams& p, bool swiglu, StreamView stream) {  \
    return swiglu ? RunSmallMatmul<DType::k##T, true>(p, stream)                             \
                  : RunSmallMatmul<DType::k##T, false>(p, stream);                           \
  }

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATMUL_CUDA_CUH_
