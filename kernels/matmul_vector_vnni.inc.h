// Part of matmul_isa.inc.h: quantised weights with a few rows of x, for AVX-512 with VNNI.
//
// One row of W after the other, 256 columns at a time, so that a thread reads one stream: two or
// four rows side by side would share what is loaded of x, but read DRAM at 60% of the rate when
// measured. What is unpacked of W serves up to four rows of x. About 32 vector instructions a Q4_K
// block and row of x, 18 more for each further row of x: two to three times what one core's share
// of the DRAM bandwidth asks for at n = 1. Every result is summed in the same order whatever n is.
#ifndef MILLRACE_KERNELS_MATMUL_VECTOR_VNNI_INC_H_
#define MILLRACE_KERNELS_MATMUL_VECTOR_VNNI_INC_H_

#include "kernels/matmul_chunks_vnni.inc.h"

namespace millrace {
namespace {

// 256 columns of one row of x in the order of a codec's codes. Sub-blocks of 32: eight scales and
// eight sums in `scale`; of 16: sixteen scales in `scale`, sixteen sums in `sum`.
struct InputChunk {
  __m512i q[4];
  __m512 scale, sum;
};

template <DType T>
inline InputChunk LoadInput(const MatmulArgs& a, int64_t t, int64_t column) {
  using C = ChunkCodec<T>;
  constexpr int kSub = Codec<T>::kSub;
  const uint8_t* q = reinterpret_cast<const uint8_t*>(a.xq.q + t * a.cols + column);
  const float* scale = a.xq.scale + (t * a.cols + column) / kSub;
  const float* sum = a.xq.sum + (t * a.cols + column) / kSub;
  InputChunk x;
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    x.q[k] = C::kSecond[k] == C::kFirst[k] + 1
                 ? Load512(q + 32 * C::kFirst[k])
                 : TwoHalves(q + 32 * C::kFirst[k], q + 32 * C::kSecond[k]);
  }
  if constexpr (kSub == 32) {
    x.scale =
        _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(scale)), _mm256_loadu_ps(sum), 1);
    x.sum = x.scale;
  } else {
    x.scale = _mm512_loadu_ps(scale);
    x.sum = _mm512_loadu_ps(sum);
  }
  return x;
}

struct VnniSums {
  __m512 products, low;
};

template <DType T>
inline void AddChunk(const WeightChunk& w, const InputChunk& x, VnniSums& sums) {
  const __m512 scale = _mm512_mul_ps(w.scale, x.scale);
  if constexpr (Codec<T>::kSub == 32) {
    sums.low = _mm512_add_ps(sums.low, scale);  // the upper half counts
  } else {
    sums.low = _mm512_fmadd_ps(w.low, x.sum, sums.low);
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m512i dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.code[k], x.q[k]);
    sums.products = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                    _mm512_permutexvar_ps(ScaleLanes<T>(k), scale), sums.products);
  }
}

// Columns past the last whole chunk, for types with blocks of 32.
template <DType T>
float DotTail(const MatmulArgs& a, int64_t t, int64_t row, int64_t column) {
  using C = Codec<T>;
  const uint8_t* b = a.w + row * a.row_bytes + column / C::kBlock * C::kBytes;
  float total = 0;
  for (int64_t c = column; c < a.cols; c += C::kBlock, b += C::kBytes) {
    uint8_t u[C::kBlock];
    float s[C::kBlock / C::kSub], m[C::kBlock / C::kSub] = {};
    MemoryCodes codes{u};
    C::Unpack(b, 0, codes, s, m);
    const int8_t* q = a.xq.q + t * a.cols + c;
    int32_t dot = 0;
    for (int i = 0; i < C::kBlock; ++i) dot += static_cast<int32_t>(u[i]) * q[i];
    const int64_t sub = (t * a.cols + c) / C::kSub;
    const float low = C::kHasMin ? m[0] : s[0] * static_cast<float>(C::kOffset);
    total += s[0] * a.xq.scale[sub] * static_cast<float>(dot) - low * a.xq.sum[sub];
  }
  return total;
}

template <DType T>
inline float Total(const VnniSums& sums) {
  __m512 low = sums.low;
  if constexpr (Codec<T>::kSub == 32) low = _mm512_maskz_mov_ps(0xff00, low);
  return _mm512_reduce_add_ps(sums.products) - ChunkCodec<T>::kLow * _mm512_reduce_add_ps(low);
}

// One row of W with N rows of x from t0 on.
template <DType T, int N>
void DotRow(const MatmulArgs& a, int64_t t0, int64_t row) {
  constexpr int64_t kStep = kChunk / Codec<T>::kBlock * Codec<T>::kBytes;  // bytes of a chunk
  const uint8_t* w = a.w + row * a.row_bytes;
  VnniSums sums[N];
  for (int t = 0; t < N; ++t) sums[t] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t column = 0;
  for (; column + kChunk <= a.cols; column += kChunk, w += kStep) {
#pragma GCC unroll 8
    for (int i = 0; i < kStep; i += 64) __builtin_prefetch(w + kPrefetchBytes + i);
    const WeightChunk chunk = ChunkCodec<T>::Load(w);
#pragma GCC unroll 4
    for (int t = 0; t < N; ++t) AddChunk<T>(chunk, LoadInput<T>(a, t0 + t, column), sums[t]);
  }
  for (int t = 0; t < N; ++t) {
    float total = Total<T>(sums[t]);
    if (column < a.cols) total += DotTail<T>(a, t0 + t, row, column);
    Store(a.out, t0 + t, row, total);
  }
}

template <DType T>
void VectorQuantized(const MatmulArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int64_t t = 0;
    for (; t + 4 <= a.n; t += 4) DotRow<T, 4>(a, t, row);
    switch (a.n - t) {
      case 3:
        DotRow<T, 3>(a, t, row);
        break;
      case 2:
        DotRow<T, 2>(a, t, row);
        break;
      case 1:
        DotRow<T, 1>(a, t, row);
        break;
      default:
        break;
    }
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_VECTOR_VNNI_INC_H_
