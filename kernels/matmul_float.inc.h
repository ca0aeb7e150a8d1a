// Part of matmul_isa.inc.h: products with F32, F16 and BF16 weights, f32 throughout.
#ifndef MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_
#define MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_

#include "kernels/matmul_common.inc.h"

namespace millrace {
namespace {

// R rows of W with N rows of x.
template <DType T, int R, int N>
inline void DotFloatRows(const MatmulArgs& a, int64_t t0, int64_t row) {
  constexpr int kBytes = kElementBytes<T>;
  const uint8_t* w = a.w + row * a.row_bytes;
  VF acc[R][N] = {};
  int64_t c = 0;
  for (; c + kLanes <= a.cols; c += kLanes) {
    VF x[N];
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) x[t] = LoadF(a.x + (t0 + t) * a.x_stride + c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VF v = LoadWeights<T>(w + r * a.row_bytes + c * kBytes);
      __builtin_prefetch(w + r * a.row_bytes + c * kBytes + kPrefetchBytes / R);
#pragma GCC unroll 4
      for (int t = 0; t < N; ++t) acc[r][t] = Fma(v, x[t], acc[r][t]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < N; ++t) {
      float sum = Sum(acc[r][t]);
      for (int64_t i = c; i < a.cols; ++i) {
        sum += LoadWeight<T>(w + r * a.row_bytes + i * kBytes) * a.x[(t0 + t) * a.x_stride + i];
      }
      Store(a.out, t0 + t, row + r, sum);
    }
  }
}

template <DType T, int R>
inline void VectorFloatRows(const MatmulArgs& a, int64_t row) {
  int64_t t = 0;
  if constexpr (kLanes == 16) {  // sixteen sums need more registers than AVX2 has
    for (; t + 4 <= a.n; t += 4) DotFloatRows<T, R, 4>(a, t, row);
  }
  for (; t + 2 <= a.n; t += 2) DotFloatRows<T, R, 2>(a, t, row);
  for (; t < a.n; ++t) DotFloatRows<T, R, 1>(a, t, row);
}

// Four rows side by side: x is f32, and loading it once a row would be most of the work.
template <DType T>
void VectorFloat(const MatmulArgs& a, int64_t begin, int64_t end) {
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) VectorFloatRows<T, 4>(a, row);
  for (; row < end; ++row) VectorFloatRows<T, 1>(a, row);
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_
