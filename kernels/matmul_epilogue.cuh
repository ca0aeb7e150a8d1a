// What the decode kernels (matmul_cuda.cuh) do with finished sums: scale, bias, SwiGLU, the residual
// stream, and the two ends of a deferred norm (deferred_norm_cuda.h).
#ifndef MILLRACE_KERNELS_MATMUL_EPILOGUE_CUH_
#define MILLRACE_KERNELS_MATMUL_EPILOGUE_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/small_matmul_params.h"

namespace millrace::cuda {

// Adds a team's sums of one row and column, in order.
template <typename Shape>
__device__ __forceinline__ float SumOfWarps(const float* sums, int at) {
  float v = 0;
#pragma unroll
  for (int w = 0; w < Shape::kTeamWarps; ++w) v += sums[w * Shape::kColumns * 16 * Shape::kTiles + at];
  return v;
}

template <typename Shape>
struct Epilogue {
  static constexpr int kThreads = 32 * Shape::kWarps;
  static constexpr int kRows = 16 * Shape::kBlockStrips;
  // From a row of gate to the same one of up.
  static constexpr int kToUp = Shape::kTeams == 2
                                   ? Shape::kTeamWarps * Shape::kColumns * 16 * Shape::kTiles
                                   : kRows;

  // Any number of columns, no norm.
  static __device__ void FinishMany(const SmallMatmulParams& p, const float* sums) {
    for (int i = threadIdx.x; i < kRows * Shape::kColumns; i += kThreads) {
      const int in_block = i % kRows, column = i / kRows;
      const int row = static_cast<int>(blockIdx.x) * kRows + in_block;
      if (row >= p.rows || column >= p.n) continue;
      const int at = column * 16 * Shape::kTiles + in_block;
      float v = SumOfWarps<Shape>(sums, at) * p.multiplier;
      if (Shape::kSwiGlu) {
        const float up = SumOfWarps<Shape>(sums, at + kToUp) * p.up_multiplier;
        p.out[column * p.ldy + row] = SaturatedHalf(v / (1.0f + __expf(-v)) * up);
      } else {
        float* y = p.y + column * p.ldy + row;
        if (p.bias != nullptr) v += p.bias[row];
        *y = p.accumulate ? *y + v : v;
      }
    }
  }
};

// For at most eight columns: one result a thread, what it needs loaded before the product begins.
template <typename Shape>
class FewColumnsEpilogue {
 public:
  struct Shared {
    float squares[Shape::kWarps][Shape::kColumns];
    float prescale[Shape::kColumns];
  };

  __device__ explicit FewColumnsEpilogue(const SmallMatmulParams& p)
      : in_block_(threadIdx.x % kRows), column_(threadIdx.x / kRows),
        row_(static_cast<int>(blockIdx.x) * kRows + in_block_),
        mine_(column_ < p.n && row_ < p.rows) {
    if (mine_ && p.bias != nullptr) bias_ = p.bias[row_];
    if (mine_ && p.next_weight != nullptr) weight_ = p.next_weight[row_];
  }

  // After WaitForPrevious.
  __device__ __forceinline__ void Load(const SmallMatmulParams& p) {
    if (mine_ && p.accumulate) before_ = p.y[column_ * p.ldy + row_];
    if (p.norm.sums == nullptr) return;
    const int part = 2 * static_cast<int>(threadIdx.x);
#pragma unroll
    for (int c = 0; c < Shape::kMostRows; ++c) {
      squares_[c] = make_float2(0, 0);
      if (c >= p.n || part >= p.norm.parts) continue;
      const float* at = p.norm.sums + c * kDeferredNormParts + part;
      squares_[c] = part + 1 < p.norm.parts ? *reinterpret_cast<const float2*>(at)
                                            : make_float2(*at, 0);
    }
    if (threadIdx.x < Shape::kColumns && static_cast<int>(threadIdx.x) < p.n) {
      prescale_ = p.norm.prescale[threadIdx.x];
    }
  }

  // Before the barrier that Finish comes behind.
  __device__ __forceinline__ void Publish(const SmallMatmulParams& p, Shared& shared) const {
    if (p.norm.sums == nullptr) return;
#pragma unroll
    for (int c = 0; c < Shape::kMostRows; ++c) {
      float sum = squares_[c].x + squares_[c].y;
#pragma unroll
      for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
      if (threadIdx.x % 32 == 0) shared.squares[threadIdx.x / 32][c] = sum;
    }
    if (threadIdx.x < Shape::kColumns) shared.prescale[threadIdx.x] = prescale_;
  }

  __device__ __forceinline__ void Finish(const SmallMatmulParams& p, const float* sums,
                                         const Shared& shared) const {
    if (static_cast<int>(threadIdx.x) >= kRows * Shape::kColumns) return;
    const int at = column_ * 16 * Shape::kTiles + in_block_;
    float v = SumOfWarps<Shape>(sums, at) * p.multiplier;
    float scale = 1;
    if (p.norm.sums != nullptr) scale = InverseRms(p, shared);
    const bool to_norm = !Shape::kSwiGlu && p.next_weight != nullptr;
    if (p.norm.sums != nullptr && !to_norm) {
      scale /= shared.prescale[column_];
      v *= scale;
    }
    if (Shape::kSwiGlu) {
      const float up = SumOfWarps<Shape>(sums, at + kToUp) * p.up_multiplier * scale;
      if (mine_) p.out[column_ * p.ldy + row_] = SaturatedHalf(v / (1.0f + __expf(-v)) * up);
      return;
    }
    v += bias_ + before_;
    if (mine_) p.y[column_ * p.ldy + row_] = v;
    if (to_norm) Normalize(p, mine_ ? v : 0, scale * kNormHeadroom);
  }

 private:
  static constexpr int kRows = Epilogue<Shape>::kRows;
  static constexpr int kToUp = Epilogue<Shape>::kToUp;
  static_assert(kRows * Shape::kColumns <= 32 * Shape::kWarps && kRows <= 32);

  __device__ __forceinline__ float InverseRms(const SmallMatmulParams& p,
                                              const Shared& shared) const {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) sum += shared.squares[w][column_];
    return 1.0f / sqrtf(sum / static_cast<float>(p.norm.d) + p.norm.epsilon);
  }

  __device__ __forceinline__ void Normalize(const SmallMatmulParams& p, float v,
                                            float prescale) const {
    if (mine_) p.normed[column_ * p.ld_normed + row_] = SaturatedHalf(v * weight_ * prescale);
    // The kRows threads of a column stand side by side in a warp.
    const unsigned lanes =
        kRows == 32 ? ~0u : 0xffffu << (threadIdx.x & 16u);
    float square = v * v;
#pragma unroll
    for (int step = kRows / 2; step > 0; step /= 2) square += __shfl_xor_sync(lanes, square, step);
    if (in_block_ != 0 || column_ >= p.n) return;
    p.next_sums[column_ * kDeferredNormParts + blockIdx.x] = square;
    if (blockIdx.x == 0) p.next_prescale[column_] = prescale;
  }

  const int in_block_, column_, row_;
  const bool mine_;
  float bias_ = 0, weight_ = 0, before_ = 0, prescale_ = 1;
  float2 squares_[Shape::kMostRows];
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_MATMUL_EPILOGUE_CUH_
