// Part of the tile kernels: rows of quantised W as bf16 values.
//
// The 32 columns of a group are stored even columns first, then the odd ones (EvenThenOdd): codes
// lie in bytes, results in words, and so no code has to change its place; x is packed in the same
// order.
//
// A 4- or 5-bit code takes its value from a table of the 16 or 32 values of its sub-block, made by
// one or two multiply-adds and looked up 32 codes at a time: about 50 (4 bits) or 85 (5 bits)
// vector instructions for 256 weights. Wider codes and sub-blocks of 16 are computed value by
// value: about 110.
#ifndef MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_
#define MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_

#include "kernels/matmul_chunks_vnni.inc.h"

namespace millrace {
namespace {

// Bits of a code that a table serves; 0: no table.
template <DType T>
constexpr int TableBits() {
  switch (T) {
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return 4;
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ5_K:
      return 5;
    default:
      return 0;
  }
}

inline __m512 CountFrom(float first) {
  const __m512 zero_to_15 = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  return _mm512_add_ps(zero_to_15, _mm512_set1_ps(first));
}

inline __m512i ToBf16(__m512 first, __m512 second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

// 32 words in the order of the columns to the order of a group.
inline __m512i EvenThenOdd(__m512i words) {
  const __m512i order = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
                                         30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutexvar_epi16(order, words);
}

// Values of the even and of the odd columns of two groups, `first` in the low halves.
struct TwoGroups {
  __m512i even, odd;
};

// Both groups by one table: entries 0-15 the first's, 16-31 the second's.
inline TwoGroups LookUpFourBits(__m512i codes, const float* s, const float* l, int first,
                                int second) {
  const __m512 count = CountFrom(0);
  const __m512i table =
      ToBf16(_mm512_fmsub_ps(count, _mm512_set1_ps(s[first]), _mm512_set1_ps(l[first])),
             _mm512_fmsub_ps(count, _mm512_set1_ps(s[second]), _mm512_set1_ps(l[second])));
  const __m512i of_second = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(16), 1);
  const __m512i index = _mm512_or_si512(codes, of_second);  // a word's low five bits count
  return {_mm512_permutexvar_epi16(index, table),
          _mm512_permutexvar_epi16(_mm512_srli_epi16(index, 8), table)};
}

inline __m512i FiveBitTable(float s, float l) {
  const __m512 scale = _mm512_set1_ps(s), low = _mm512_set1_ps(l);
  return ToBf16(_mm512_fmsub_ps(CountFrom(0), scale, low),
                _mm512_fmsub_ps(CountFrom(16), scale, low));
}

// Each group by a table of its own.
inline TwoGroups LookUpFiveBits(__m512i codes, __m512i first, __m512i second) {
  constexpr __mmask32 kOfSecond = 0xffff0000;
  const auto both = [&](__m512i index) {
    return _mm512_mask_permutexvar_epi16(_mm512_permutexvar_epi16(index, first), kOfSecond, index,
                                         second);
  };
  return {both(codes), both(_mm512_srli_epi16(codes, 8))};
}

// Four codes a dword to four f32 results each: mantissa bits under the exponent of 256, so that a
// code c reads 256 + c. scale and low are of the lanes; low holds the 256 as well.
inline __m512 ValuesOfByte(__m512i moved, __m512 scale, __m512 low) {
  const __m512i bits =
      MaskedOr(moved, _mm512_set1_epi32(0xff << 15), _mm512_set1_epi32(0x43800000));
  return _mm512_fmsub_ps(_mm512_castsi512_ps(bits), scale, low);
}

// bf16 of `low` in the low words, of `high` in the high ones; to nearest, ties away from zero.
inline __m512i RoundToWords(__m512 low, __m512 high) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i a = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(low), half), 16);
  const __m512i b = _mm512_add_epi32(_mm512_castps_si512(high), half);
  return MaskedOr(b, _mm512_set1_epi32(static_cast<int>(0xffff0000u)), a);
}

inline TwoGroups ComputeValues(__m512i codes, __m512 scale, __m512 low) {
  return {RoundToWords(ValuesOfByte(_mm512_slli_epi32(codes, 15), scale, low),
                       ValuesOfByte(_mm512_srli_epi32(codes, 1), scale, low)),
          RoundToWords(ValuesOfByte(_mm512_slli_epi32(codes, 7), scale, low),
                       ValuesOfByte(_mm512_srli_epi32(codes, 9), scale, low))};
}

// Each group's row of its tile, a cache line, is written in one go.
inline void StoreGroups(uint16_t* first, uint16_t* second, const TwoGroups& g) {
  const auto half = [](uint16_t* to, __m256i v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v);
  };
  half(first, _mm512_castsi512_si256(g.even));
  half(first + 16, _mm512_castsi512_si256(g.odd));
  half(second, _mm512_extracti64x4_epi64(g.even, 1));
  half(second + 16, _mm512_extracti64x4_epi64(g.odd, 1));
}

// Scales and kLow * l of a chunk, one for each sub-block, in memory: broadcast loads cost no vector
// instruction.
struct ChunkScales {
  alignas(64) float s[16], l[16];
};

template <DType T>
inline __attribute__((always_inline)) void SplitScales(const WeightChunk& w, ChunkScales& out) {
  const __m512 factor = _mm512_set1_ps(ChunkCodec<T>::kLow);
  if constexpr (Codec<T>::kSub == 32) {
    _mm512_store_ps(out.s, w.scale);
    _mm256_store_ps(out.l, _mm512_castps512_ps256(_mm512_mul_ps(
                               _mm512_shuffle_f32x4(w.scale, w.scale, 0xee), factor)));
  } else {
    _mm512_store_ps(out.s, w.scale);
    _mm512_store_ps(out.l, _mm512_mul_ps(w.low, factor));
  }
  asm volatile("" : "+m"(out));  // or the compiler finds shuffles to do without the memory
}

// Both groups of register k of a chunk's codes.
template <DType T, int k>
inline __attribute__((always_inline)) TwoGroups LookUp(__m512i codes, const ChunkScales& scales) {
  constexpr int first = ChunkCodec<T>::kFirst[k], second = ChunkCodec<T>::kSecond[k];
  if constexpr (TableBits<T>() == 4) {
    return LookUpFourBits(codes, scales.s, scales.l, first, second);
  } else {
    return LookUpFiveBits(codes, FiveBitTable(scales.s[first], scales.l[first]),
                          FiveBitTable(scales.s[second], scales.l[second]));
  }
}

template <DType T, int k>
inline __attribute__((always_inline)) void StoreRegister(uint16_t* out, int64_t stride,
                                                         const TwoGroups& groups) {
  StoreGroups(out + ChunkCodec<T>::kFirst[k] * stride, out + ChunkCodec<T>::kSecond[k] * stride,
              groups);
}

// 256 columns whose blocks begin at b: group g of 32 columns goes to out + g * stride (values of
// bf16).
template <DType T>
inline __attribute__((always_inline)) void ChunkToBf16(const uint8_t* b, uint16_t* out,
                                                       int64_t stride) {
  using C = ChunkCodec<T>;
  const WeightChunk w = C::Load(b);
  // Out of the struct before SplitScales, or the compiler keeps them on the stack.
  const __m512i c0 = w.code[0], c1 = w.code[1], c2 = w.code[2], c3 = w.code[3];
  if constexpr (TableBits<T>() != 0) {
    ChunkScales scales;
    SplitScales<T>(w, scales);
    StoreRegister<T, 0>(out, stride, LookUp<T, 0>(c0, scales));
    StoreRegister<T, 1>(out, stride, LookUp<T, 1>(c1, scales));
    StoreRegister<T, 2>(out, stride, LookUp<T, 2>(c2, scales));
    StoreRegister<T, 3>(out, stride, LookUp<T, 3>(c3, scales));
  } else {
    __m512 l = w.low;
    if constexpr (Codec<T>::kSub == 32) l = w.scale;  // Q8_0: minima are multiples of the scales
    const __m512 low =
        _mm512_fmadd_ps(w.scale, _mm512_set1_ps(256), _mm512_mul_ps(l, _mm512_set1_ps(C::kLow)));
    const auto values = [&](__m512i codes, int k) {
      return ComputeValues(codes, _mm512_permutexvar_ps(ScaleLanes<T>(k), w.scale),
                           _mm512_permutexvar_ps(ScaleLanes<T>(k), low));
    };
    StoreRegister<T, 0>(out, stride, values(c0, 0));
    StoreRegister<T, 1>(out, stride, values(c1, 1));
    StoreRegister<T, 2>(out, stride, values(c2, 2));
    StoreRegister<T, 3>(out, stride, values(c3, 3));
  }
}

// One block of 32 columns.
template <DType T>
inline void GroupToBf16(const uint8_t* b, uint16_t* out) {
  using C = Codec<T>;
  float s[1], m[1] = {};
  RegisterCodes codes;
  C::Unpack(b, 0, codes, s, m);
  const __m256i u = (__m256i)codes.v[0];
  const __m512 scale = _mm512_set1_ps(s[0]);
  const __m512 low = _mm512_set1_ps(C::kHasMin ? m[0] : s[0] * static_cast<float>(C::kOffset));
  const auto values = [&](__m128i c) {
    return _mm512_fmsub_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(c)), scale, low);
  };
  _mm512_storeu_si512(out, EvenThenOdd(ToBf16(values(_mm256_castsi256_si128(u)),
                                              values(_mm256_extracti128_si256(u, 1)))));
}

// `count` columns of a row whose blocks begin at b, in whole blocks.
template <DType T>
inline __attribute__((always_inline)) void ColumnsToBf16(const uint8_t* b, int64_t count,
                                                         uint16_t* out, int64_t stride) {
  using C = Codec<T>;
  int64_t c = 0;
  for (; c + kChunk <= count; c += kChunk, b += kChunk / C::kBlock * C::kBytes) {
    ChunkToBf16<T>(b, out + c / 32 * stride, stride);
  }
  if constexpr (C::kBlock == 32) {
    for (; c < count; c += C::kBlock, b += C::kBytes) GroupToBf16<T>(b, out + c / 32 * stride);
  }
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_
