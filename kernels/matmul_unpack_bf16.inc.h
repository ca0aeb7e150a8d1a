// Part of the tile kernels: rows of quantised W as bf16 values, in the order of the columns.
//
// A 4- or 5-bit code takes its value from a table of the 16 or 32 values of its sub-block, made by one or
// two multiply-adds and looked up 32 codes at a time: about 60 vector instructions for 256 weights.
// Wider codes and sub-blocks of 16 are computed value by value: about 90.
#ifndef MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_
#define MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_

#include "kernels/matmul_chunks_vnni.inc.h"

namespace millrace {
namespace {

// Bits of a code that a table serves; 0: no table.
template <DType T>
constexpr int TableBits() {
  switch (T) {
    case DType::kQ4_0: case DType::kQ4_1: case DType::kQ4_K: return 4;
    case DType::kQ5_0: case DType::kQ5_1: case DType::kQ5_K: return 5;
    default: return 0;
  }
}

inline __m512 CountFrom(float first) {
  const __m512 zero_to_15 = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_add_ps(zero_to_15, _mm512_set1_ps(first));
}

inline __m512i ToBf16(__m512 first, __m512 second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// scale * code - low for sixteen codes.
inline __m512 ValuesOf(__m128i codes, float scale, float low) {
  return _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), _mm512_set1_ps(scale),
                         _mm512_set1_ps(low));
}

// 32 codes of the column group `group` (of a chunk's eight) as bf16. s and l: scale and minimum of each
// of the chunk's sub-blocks.
template <DType T>
inline __m512i GroupToBf16(__m256i codes, int group, const float* s, const float* l) {
  if constexpr (TableBits<T>() == 4) {
    const __m512 values = _mm512_fmsub_ps(CountFrom(0), _mm512_set1_ps(s[group]), _mm512_set1_ps(l[group]));
    const __m512i table = _mm512_castsi256_si512((__m256i)_mm512_cvtneps_pbh(values));
    return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(codes), table);
  } else if constexpr (TableBits<T>() == 5) {
    const __m512 scale = _mm512_set1_ps(s[group]), low = _mm512_set1_ps(l[group]);
    const __m512i table =
        ToBf16(_mm512_fmsub_ps(CountFrom(0), scale, low), _mm512_fmsub_ps(CountFrom(16), scale, low));
    return _mm512_permutexvar_epi16(_mm512_cvtepu8_epi16(codes), table);
  } else {
    constexpr int kSubs = 32 / Codec<T>::kSub;
    const int first = group * kSubs, second = first + kSubs - 1;
    return ToBf16(ValuesOf(_mm256_castsi256_si128(codes), s[first], l[first]),
                  ValuesOf(_mm256_extracti128_si256(codes, 1), s[second], l[second]));
  }
}

// 256 columns whose blocks begin at b: group g of 32 columns goes to out + g * stride (values of bf16).
template <DType T>
inline void ChunkToBf16(const uint8_t* b, uint16_t* out, int64_t stride) {
  using C = ChunkCodec<T>;
  const WeightChunk w = C::Load(b);
  alignas(64) float scales[16], lows[16];
  const float *s = scales, *l = lows;
  const __m512 factor = _mm512_set1_ps(C::kLow);
  if constexpr (Codec<T>::kSub == 32) {
    const __m512 one_and_factor = _mm512_mask_mov_ps(_mm512_set1_ps(1.0f), 0xff00, factor);
    _mm512_store_ps(scales, _mm512_mul_ps(w.scale, one_and_factor));
    l = scales + 8;
  } else {
    _mm512_store_ps(scales, w.scale);
    _mm512_store_ps(lows, _mm512_mul_ps(w.low, factor));
  }
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const int first = C::kFirst[k], second = C::kSecond[k];
    _mm512_storeu_si512(out + first * stride,
                        GroupToBf16<T>(_mm512_castsi512_si256(w.code[k]), first, s, l));
    _mm512_storeu_si512(out + second * stride,
                        GroupToBf16<T>(_mm512_extracti64x4_epi64(w.code[k], 1), second, s, l));
  }
}

// `count` columns of a row whose blocks begin at b, in whole blocks.
template <DType T>
inline void ColumnsToBf16(const uint8_t* b, int64_t count, uint16_t* out, int64_t stride) {
  using C = Codec<T>;
  int64_t c = 0;
  for (; c + kChunk <= count; c += kChunk, b += kChunk / C::kBlock * C::kBytes) {
    ChunkToBf16<T>(b, out + c / 32 * stride, stride);
  }
  if constexpr (C::kBlock == 32) {
    for (; c < count; c += C::kBlock, b += C::kBytes) {
      float s[1], m[1] = {};
      RegisterCodes codes;
      C::Unpack(b, 0, codes, s, m);
      const float low = C::kHasMin ? m[0] : s[0] * static_cast<float>(C::kOffset);
      const __m256i u = (__m256i)codes.v[0];
      _mm512_storeu_si512(out + c / 32 * stride,
                          ToBf16(ValuesOf(_mm256_castsi256_si128(u), s[0], low),
                                 ValuesOf(_mm256_extracti128_si256(u, 1), s[0], low)));
    }
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_
