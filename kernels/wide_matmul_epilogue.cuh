// What the wide product (wide_matmul.cuh) does with finished sums: scale, bias, the residual
// stream, or SwiGLU. A warp holds sixteen weight rows: of its sums, 4e + 2r + i is row g + 8r of
// token 8e + 2t + i.
#ifndef MILLRACE_KERNELS_WIDE_MATMUL_EPILOGUE_CUH_
#define MILLRACE_KERNELS_WIDE_MATMUL_EPILOGUE_CUH_

#include "kernels/cuda/block_barrier.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/packed_place.cuh"
#include "kernels/wide_matmul_params.h"

namespace millrace::cuda {

// Sums to y, four groups of eight tokens at a time: what is added to is read for all of them first.
template <int kTokens>
__device__ __forceinline__ void StoreSums(const WideParams& p, const WideParams::Matrix& m, int row,
                                          int token, int lane, const float (&sum)[kTokens / 2]) {
  constexpr int kTogether = 4;
  const int g = lane / 4, t = lane % 4;
  const bool stored[2] = {row + g < m.rows, row + g + 8 < m.rows};
  float bias[2] = {0, 0};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (m.bias != nullptr && stored[r]) bias[r] = m.bias[row + g + 8 * r];
  }
  float* y = p.y + (token + 2 * t) * p.ldy + m.column + row + g;
  const int tokens = p.n - token - 2 * t;
#pragma unroll
  for (int first = 0; first < kTokens / 8; first += kTogether) {
    float before[kTogether][2][2];
#pragma unroll
    for (int e = 0; e < kTogether; ++e) {
#pragma unroll
      for (int at = 0; at < 4; ++at) {
        const int r = at / 2, i = at % 2;
        const bool mine = first + e < kTokens / 8 && 8 * (first + e) + i < tokens && stored[r];
        before[e][r][i] = bias[r];
        if (p.accumulate && mine) before[e][r][i] += y[(8 * (first + e) + i) * p.ldy + 8 * r];
      }
    }
#pragma unroll
    for (int e = 0; e < kTogether; ++e) {
#pragma unroll
      for (int at = 0; at < 4; ++at) {
        const int r = at / 2, i = at % 2;
        if (first + e < kTokens / 8 && 8 * (first + e) + i < tokens && stored[r]) {
          y[(8 * (first + e) + i) * p.ldy + 8 * r] =
              sum[4 * (first + e) + at] * m.multiplier + before[e][r][i];
        }
      }
    }
  }
}

// Gate and up change places through shared memory, sixteen sums a thread at a time.
inline constexpr int kWideExchangeSums = 16;
inline constexpr int kWideExchangeBytes = 2 * kWideExchangeSums * 128 * 4;

// Stores two neighbouring tokens' results of rows g and g + 8 of the warp's sixteen, packed. Lanes
// of neighbouring rows swap, so that each writes eight bytes of one token.
__device__ __forceinline__ void StorePacked(const WideParams& p, int row, int token, int lane,
                                            const __half (&v)[2][2]) {
  const int g = lane / 4, odd = g % 2;
  const __half2 even_token = __halves2half2(v[0][0], v[1][0]);
  const __half2 odd_token = __halves2half2(v[0][1], v[1][1]);
  const __half2 mine = odd ? odd_token : even_token, sent = odd ? even_token : odd_token;
  const __half2 got = __shfl_xor_sync(~0u, sent, 4);
  const __half2 low = odd ? __halves2half2(__low2half(got), __low2half(mine))
                          : __halves2half2(__low2half(mine), __low2half(got));
  const __half2 high = odd ? __halves2half2(__high2half(got), __high2half(mine))
                           : __halves2half2(__high2half(mine), __high2half(got));
  const int to = token + odd;
  if (to >= 8 * p.atoms || row / 64 * 64 >= p.matrix[0].rows) return;
  uint8_t* at = p.out + PackedPlace(p.atoms, to, row + g - odd);
  *reinterpret_cast<uint2*>(at) = make_uint2(*reinterpret_cast<const uint32_t*>(&low),
                                             *reinterpret_cast<const uint32_t*>(&high));
}

// Warpgroup 0 holds gate, warpgroup 1 up, of the same 64 rows. The first finishes the tile's first
// tokens, the second the others.
template <int kTokens>
__device__ __forceinline__ void StoreSwiGlu(const WideParams& p, int row, int token, int warp,
                                            int lane, float* exchange, float (&sum)[kTokens / 2]) {
  constexpr int kHalf = kTokens / 4;  // sums
  constexpr int kMost = kWideExchangeSums;
  const int mine = threadIdx.x % 128, g = lane / 4, t = lane % 4;
  const bool up = warp >= 4;
  const float multiplier = p.matrix[up ? 1 : 0].multiplier;
  const int rows = p.matrix[0].rows;
  float* post = exchange + (up ? 0 : kMost * 128) + mine;
  const float* other = exchange + (up ? kMost * 128 : 0) + mine;
#pragma unroll
  for (int first = 0; first < kHalf; first += kMost) {
    NamedBarrier<256>(1);  // the values before are read
#pragma unroll
    for (int i = 0; i < kMost; ++i) {
      if (first + i < kHalf) {
        post[i * 128] = (up ? sum[first + i] : sum[kHalf + first + i]) * multiplier;
      }
    }
    NamedBarrier<256>(1);
#pragma unroll
    for (int e = 0; e < kMost / 4; ++e) {
      if (first + 4 * e >= kHalf) continue;
      __half v[2][2];
#pragma unroll
      for (int at = 0; at < 4; ++at) {
        const int i = first + 4 * e + at;
        const float here = (up ? sum[kHalf + i] : sum[i]) * multiplier;
        const float there = other[(4 * e + at) * 128];
        const float gate = up ? there : here;
        const float result = gate / (1.0f + __expf(-gate)) * (up ? here : there);
        v[at / 2][at % 2] = SaturatedHalf(row + g + 8 * (at / 2) < rows ? result : 0.0f);
      }
      const int column = (up ? kTokens / 2 : 0) + 8 * ((first + 4 * e) / 4);
      StorePacked(p, row, token + column + 2 * t, lane, v);
    }
  }
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_MATMUL_EPILOGUE_CUH_
