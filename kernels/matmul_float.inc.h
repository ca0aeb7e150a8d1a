// Part of matmul_isa.inc.h: products with F32, F16 and BF16 weights, f32 throughout.
#ifndef MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_
#define MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_

#include "kernels/matmul_common.inc.h"

namespace millrace {
namespace {

constexpr int kFloatChunk = 1024;  // columns widened at a time

// ---- matrix-vector: a few rows of x ------------------------------------------------------------

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
  for (; t + 4 <= a.n; t += 4) DotFloatRows<T, R, 4>(a, t, row);
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

// ---- matrix-matrix: kLanes rows of W, one per lane, times many rows of x ------------------------

template <int N>
void TileFloat(const MatmulArgs& a, const float* panel, int64_t column, int count, int64_t t0,
               int64_t row, int rows, bool first) {
  VF acc[N] = {};
  const float* x = a.x + t0 * a.x_stride + column;
  for (int c = 0; c < count; ++c) {
    const VF w = LoadF(panel + c * kLanes);
#pragma GCC unroll 12
    for (int t = 0; t < N; ++t) acc[t] = Fma(w, SetF(x[t * a.x_stride + c]), acc[t]);
  }
  MatmulOutput out = a.out;
  if (!first) {
    out.bias = nullptr;
    out.accumulate = true;
  }
#pragma GCC unroll 12
  for (int t = 0; t < N; ++t) StorePanel(out, t0 + t, row, rows, acc[t]);
}

template <DType T>
void PanelFloat(const MatmulArgs& a, int64_t begin, int64_t end, void* scratch) {
  constexpr int kBytes = kElementBytes<T>;
  const int rows = static_cast<int>(end - begin);
  float* panel = static_cast<float*>(scratch);  // [count, kLanes]
  if (rows < kLanes) memset(panel, 0, sizeof(float) * kLanes * kFloatChunk);
  for (int64_t column = 0; column < a.cols; column += kFloatChunk) {
    const int count =
        static_cast<int>(a.cols - column < kFloatChunk ? a.cols - column : kFloatChunk);
    for (int r = 0; r < rows; ++r) {
      const uint8_t* w = a.w + (begin + r) * a.row_bytes + column * kBytes;
      int c = 0;
      for (; c + kLanes <= count; c += kLanes) {
        float wide[kLanes];
        StoreF(wide, LoadWeights<T>(w + c * kBytes));
        for (int i = 0; i < kLanes; ++i) panel[(c + i) * kLanes + r] = wide[i];
      }
      for (; c < count; ++c) panel[c * kLanes + r] = LoadWeight<T>(w + c * kBytes);
    }
    const bool first = column == 0;
    int64_t t = 0;
    for (; t + kTile <= a.n; t += kTile) {
      TileFloat<kTile>(a, panel, column, count, t, begin, rows, first);
    }
    if constexpr (kTile > 4) {
      for (; t + 4 <= a.n; t += 4) TileFloat<4>(a, panel, column, count, t, begin, rows, first);
    }
    for (; t < a.n; ++t) TileFloat<1>(a, panel, column, count, t, begin, rows, first);
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_FLOAT_INC_H_
