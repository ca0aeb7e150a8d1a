// Part of matmul_isa.inc.h: quantised weights with a few rows of x, for instruction sets without a
// file of their own.
#ifndef MILLRACE_KERNELS_MATMUL_VECTOR_INC_H_
#define MILLRACE_KERNELS_MATMUL_VECTOR_INC_H_

#include "kernels/matmul_common.inc.h"

namespace millrace {
namespace {

constexpr int kChunk = 256;  // columns unpacked at a time

// `count` columns (a multiple of the block, at most kChunk) of one row from `column` on: codes, and
// per sub-block a scale and an effective minimum (m + s * offset).
template <DType T, typename Out>
inline void UnpackChunk(const uint8_t* row, int64_t column, int count, Out& out, float* s,
                        float* m) {
  using C = Codec<T>;
  constexpr int kSubs = C::kBlock / C::kSub;
  const uint8_t* b = row + column / C::kBlock * C::kBytes;
#pragma GCC unroll 8
  for (int c = 0; c < count; c += C::kBlock, b += C::kBytes, s += kSubs, m += kSubs) {
    C::Unpack(b, c / 32, out, s, m);
    if constexpr (!C::kHasMin) {
      for (int j = 0; j < kSubs; ++j) m[j] = s[j] * static_cast<float>(C::kOffset);
    }
  }
}

// The i-th vector of a chunk's codes.
inline VI CodesOf(const RegisterCodes& codes, int i) {
  VI v;
  memcpy(&v, reinterpret_cast<const uint8_t*>(codes.v) + sizeof(VI) * i, sizeof(v));
  return v;
}

// Lane i of the i-th vector of codes belongs to sub-block (4 * kLanes * i + 4 * lane) / kSub.
template <int kSub>
inline VF ScalesOf(const float* scales, int i) {
  const float* first = scales + 4 * kLanes * i / kSub;
  if constexpr (4 * kLanes <= kSub) return SetF(first[0]);
  VF v;
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = first[4 * lane / kSub];
  return v;
}

// Per row of x: lanes of the products with scales, and of those with minima.
struct ColumnSums {
  VF products[kMaxVectorColumns];
  float minima[kMaxVectorColumns];
};

// Adds one whole unpacked chunk's products with every row of x.
template <int kSub>
inline void DotChunk(const MatmulArgs& a, int64_t column, const RegisterCodes& codes,
                     const float* s, const float* m, ColumnSums& sums) {
  constexpr int kSubs = kChunk / kSub;
  for (int64_t t = 0; t < a.n; ++t) {
    const int64_t sub = t * (a.cols / kSub) + column / kSub;
    const int8_t* q = a.xq.q + t * a.cols + column;
    float scale[kSubs], low = 0;
    for (int j = 0; j < kSubs; ++j) scale[j] = s[j] * a.xq.scale[sub + j];
    for (int j = 0; j < kSubs; ++j) low += m[j] * a.xq.sum[sub + j];
    VF acc = sums.products[t];
#pragma GCC unroll 16
    for (int i = 0; i < kChunk / (4 * kLanes); ++i) {
      const VI dot = DotU8S8(VI{}, CodesOf(codes, i), LoadI(q + 4 * kLanes * i));
      acc = Fma(ToFloat(dot), ScalesOf<kSub>(scale, i), acc);
    }
    sums.products[t] = acc;
    sums.minima[t] += low;
  }
}

// The same for a last chunk that is not whole.
template <int kSub>
inline void DotTail(const MatmulArgs& a, int64_t column, int count, const uint8_t* u,
                    const float* s, const float* m, ColumnSums& sums) {
  for (int64_t t = 0; t < a.n; ++t) {
    const int64_t sub = t * (a.cols / kSub) + column / kSub;
    const int8_t* q = a.xq.q + t * a.cols + column;
    for (int j = 0; j < count / kSub; ++j) {
      int32_t dot = 0;
      for (int k = kSub * j; k < kSub * (j + 1); ++k) dot += static_cast<int32_t>(u[k]) * q[k];
      sums.products[t][0] += static_cast<float>(dot) * (s[j] * a.xq.scale[sub + j]);
      sums.minima[t] += m[j] * a.xq.sum[sub + j];
    }
  }
}

template <DType T>
void VectorQuantized(const MatmulArgs& a, int64_t begin, int64_t end) {
  constexpr int kSub = Codec<T>::kSub;
  float s[kChunk / kSub], m[kChunk / kSub];
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* w = a.w + row * a.row_bytes;
    ColumnSums sums = {};
    for (int64_t column = 0; column < a.cols; column += kChunk) {
      const int count = static_cast<int>(a.cols - column < kChunk ? a.cols - column : kChunk);
      if (count == kChunk) {
        RegisterCodes codes;
        UnpackChunk<T>(w, column, kChunk, codes, s, m);
        DotChunk<kSub>(a, column, codes, s, m, sums);
      } else {
        uint8_t u[kChunk];
        MemoryCodes codes{u};
        UnpackChunk<T>(w, column, count, codes, s, m);
        DotTail<kSub>(a, column, count, u, s, m, sums);
      }
    }
    for (int64_t t = 0; t < a.n; ++t) Store(a.out, t, row, Sum(sums.products[t]) - sums.minima[t]);
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_VECTOR_INC_H_
