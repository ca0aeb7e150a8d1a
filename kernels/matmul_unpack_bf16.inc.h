// Part of the tile kernels: rows of quantised W as bf16 values.
//
// Even and odd columns go to different places: codes lie in bytes, results in words, and so no code
// has to change its place; x is packed in the same order (matmul_tile_input.inc.h).
//
// A 4- or 5-bit code takes its value from a table of the 16 or 32 values of its sub-block, looked
// up 32 codes at a time: about 48 (4 bits) or 85 (5 bits) vector instructions for 256 weights.
// Wider codes and sub-blocks of 16 are computed value by value: about 95. The processors with tiles
// take four steps for one conversion of 32 values to bf16. So f32 values are cut off, not rounded,
// and their scales made larger by the mean of what that takes away: the error is the same but for a
// part of 0.06%.
#ifndef MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_
#define MILLRACE_KERNELS_MATMUL_UNPACK_BF16_INC_H_

#include <utility>

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

// Half of a unit in the last place of bf16, on average over mantissas evenly spread in their
// logarithm: what cutting off takes away of a value.
constexpr float kCutOff = 1 + 0.7213f / 256;

// bf16 of `low` in the low words, of `high` in the high ones, cut off.
inline __m512i CutToWords(__m512 low, __m512 high) {
  return MaskedOr(_mm512_castps_si512(high), _mm512_set1_epi32(static_cast<int>(0xffff0000u)),
                  _mm512_srli_epi32(_mm512_castps_si512(low), 16));
}

// Indices of a table of two groups: twice the code, plus one in the second group.
template <DType T>
inline __attribute__((always_inline)) WeightChunk LoadIndices(const uint8_t* b) {
  WeightChunk w;
  const __m512i second = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(1), 1);
  if constexpr (T == DType::kQ4_K) {
    const __m512i mask = Bytes512(0x1e);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i v = Load512(b + 16 + 64 * half);
      w.code[2 * half] = MaskedOr(_mm512_add_epi32(v, v), mask, second);
      w.code[2 * half + 1] = MaskedOr(_mm512_srli_epi32(v, 3), mask, second);
    }
    w.scale = SixBitScales(b);
  } else {
    w = ChunkCodec<T>::Load(b);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      w.code[k] = _mm512_or_si512(_mm512_add_epi8(w.code[k], w.code[k]), second);
    }
  }
  return w;
}

// Both groups by one table, the first's entries in the even places. scales: eight s, eight l.
inline __attribute__((always_inline)) TwoGroups LookUpFourBits(__m512i index, const float* scales,
                                                               int first, int second) {
  const __m512 count = CountFrom(0);
  const __m512i table = CutToWords(
      _mm512_fmsub_ps(count, _mm512_set1_ps(scales[first]), _mm512_set1_ps(scales[8 + first])),
      _mm512_fmsub_ps(count, _mm512_set1_ps(scales[second]), _mm512_set1_ps(scales[8 + second])));
  return {_mm512_permutexvar_epi16(index, table),  // a word's low five bits count
          _mm512_permutexvar_epi16(_mm512_srli_epi16(index, 8), table)};
}

inline __m512i FiveBitTable(float s, float l) {
  const __m512 scale = _mm512_set1_ps(s), low = _mm512_set1_ps(l);
  return ToBf16(_mm512_fmsub_ps(CountFrom(0), scale, low),
                _mm512_fmsub_ps(CountFrom(16), scale, low));
}

// Four codes a dword to four f32 results each: mantissa bits under the exponent of 256, so that a
// code c reads 256 + c. scale and low are of the lanes; low holds the 256 as well.
inline __m512 ValuesOfByte(__m512i moved, __m512 scale, __m512 low) {
  const __m512i bits =
      MaskedOr(moved, _mm512_set1_epi32(0xff << 15), _mm512_set1_epi32(0x43800000));
  return _mm512_fmsub_ps(_mm512_castsi512_ps(bits), scale, low);
}

inline TwoGroups ComputeValues(__m512i codes, __m512 scale, __m512 low) {
  return {CutToWords(ValuesOfByte(_mm512_slli_epi32(codes, 15), scale, low),
                     ValuesOfByte(_mm512_srli_epi32(codes, 1), scale, low)),
          CutToWords(ValuesOfByte(_mm512_slli_epi32(codes, 7), scale, low),
                     ValuesOfByte(_mm512_srli_epi32(codes, 9), scale, low))};
}

// Values of groups `first` and `second` to the tiles `stride` apart that hold them (see
// matmul_tile_input.inc.h).
template <int first, int second>
inline __attribute__((always_inline)) void StoreGroups(const TwoGroups& groups, uint16_t* out,
                                                       int64_t stride) {
  if constexpr (second == first + 2 && (first & 2) == 0) {
    _mm512_storeu_si512(out + first * stride, groups.even);
    _mm512_storeu_si512(out + second * stride, groups.odd);
  } else {
    const auto store = [&](int group, __m256i even, __m256i odd) {
      uint16_t* to = out + (group & ~2) * stride + (group & 2) * 8;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), even);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 2 * stride), odd);
    };
    store(first, _mm512_castsi512_si256(groups.even), _mm512_castsi512_si256(groups.odd));
    store(second, _mm512_extracti64x4_epi64(groups.even, 1),
          _mm512_extracti64x4_epi64(groups.odd, 1));
  }
}

// Eight scales and eight kLow * l of a chunk, in memory: broadcast loads cost no vector
// instruction.
struct ChunkScales {
  alignas(64) float v[16];
};

template <DType T>
inline __attribute__((always_inline)) void SplitScales(const WeightChunk& w, ChunkScales& out) {
  static_assert(Codec<T>::kSub == 32);
  constexpr float s = TableBits<T>() == 4 ? kCutOff : 1, l = ChunkCodec<T>::kLow * s;
  _mm512_store_ps(
      out.v, _mm512_mul_ps(w.scale, _mm512_set_ps(l, l, l, l, l, l, l, l, s, s, s, s, s, s, s, s)));
  asm volatile("" : "+m"(out));  // or the compiler finds shuffles to do without the memory
}

inline __attribute__((always_inline)) TwoGroups LookUpFiveBits(__m512i codes, const float* scales,
                                                               int first, int second) {
  const __m512i a = FiveBitTable(scales[first], scales[8 + first]);
  const __m512i b = FiveBitTable(scales[second], scales[8 + second]);
  const auto look_up = [&](__m512i index) {
    return _mm512_mask_permutexvar_epi16(_mm512_permutexvar_epi16(index, a), 0xffff0000, index, b);
  };
  return {look_up(codes), look_up(_mm512_srli_epi16(codes, 8))};
}

template <DType T, int k>
inline __attribute__((always_inline)) TwoGroups GroupsOf(const WeightChunk& w,
                                                         const ChunkScales& scales, __m512 low) {
  using C = ChunkCodec<T>;
  if constexpr (TableBits<T>() == 4) {
    return LookUpFourBits(w.code[k], scales.v, C::kFirst[k], C::kSecond[k]);
  } else if constexpr (TableBits<T>() == 5) {
    return LookUpFiveBits(w.code[k], scales.v, C::kFirst[k], C::kSecond[k]);
  } else {
    return ComputeValues(w.code[k], _mm512_permutexvar_ps(ScaleLanes<T>(k), w.scale),
                         _mm512_permutexvar_ps(ScaleLanes<T>(k), low));
  }
}

// 256 columns whose blocks begin at b to the tiles at out, out + stride ... (values of bf16).
template <DType T>
inline __attribute__((always_inline)) void ChunkToBf16(const uint8_t* b, uint16_t* out,
                                                       int64_t stride) {
  using C = ChunkCodec<T>;
  WeightChunk w;
  ChunkScales scales;
  __m512 low = _mm512_setzero_ps();
  if constexpr (TableBits<T>() != 0) {
    w = TableBits<T>() == 4 ? LoadIndices<T>(b) : C::Load(b);
    SplitScales<T>(w, scales);
  } else {
    w = C::Load(b);
    const __m512 cut = _mm512_set1_ps(kCutOff), factor = _mm512_set1_ps(C::kLow * kCutOff);
    const __m512 l = Codec<T>::kSub == 32 ? w.scale : w.low;  // Q8_0: multiples of the scales
    w.scale = _mm512_mul_ps(w.scale, cut);
    low = _mm512_fmadd_ps(w.scale, _mm512_set1_ps(256), _mm512_mul_ps(l, factor));
  }
  const auto store = [&]<int... k>(std::integer_sequence<int, k...>) {
    (StoreGroups<C::kFirst[k], C::kSecond[k]>(GroupsOf<T, k>(w, scales, low), out, stride), ...);
  };
  store(std::make_integer_sequence<int, 4>());
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
