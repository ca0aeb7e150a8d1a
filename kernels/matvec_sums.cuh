// StripSum: one warp's sums of a strip of sixteen weight rows times one activation row. Used by
// matvec_cuda.cuh.
#ifndef MILLRACE_KERNELS_MATVEC_SUMS_CUH_
#define MILLRACE_KERNELS_MATVEC_SUMS_CUH_

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile_codec.cuh"

namespace millrace::cuda::matvec {

// By products with the row in all eight columns.
template <DType T>
class StripSum {
 public:
  using Codec = TileCodec<T>;

  // One tile; x: the activations of its columns, in shared memory.
  __device__ __forceinline__ void Add(const uint8_t* tile, const __half* x, int lane) {
    const typename Codec::Scales scales = Codec::LoadScales(tile, lane);
#pragma unroll
    for (int step = 0; step < Codec::kTileCols / 32 / Codec::kStep; ++step) {
      const typename Codec::Codes codes = Codec::LoadCodes(tile, lane, step);
#pragma unroll
      for (int j = 0; j < Codec::kStep; ++j) {
        const int column = 32 * (step * Codec::kStep + j) + 8 * (lane % 4);
        const uint4 b = *reinterpret_cast<const uint4*>(x + column);
        uint32_t a[8];
        Codec::Fragments(codes, scales, step, j, a);
        MmaF16(even_, a[0], a[1], a[2], a[3], b.x, b.y);
        MmaF16(odd_, a[4], a[5], a[6], a[7], b.z, b.w);
      }
    }
  }

  // To sums[row], and begins anew.
  __device__ __forceinline__ void Leave(float* sums, int lane) {
    if (lane % 4 == 0) {
      sums[lane / 4] = even_[0] + odd_[0];
      sums[lane / 4 + 8] = even_[2] + odd_[2];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) even_[i] = odd_[i] = 0;
  }

 private:
  float even_[4] = {}, odd_[4] = {};
};

}  // namespace millrace::cuda::matvec

#endif  // MILLRACE_KERNELS_MATVEC_SUMS_CUH_
