// Part of matmul_isa.inc.h: 256 columns of one row of W as four registers of codes and one or two
// of scales, for AVX-512. Nothing goes through memory, and what the block formats pack as small
// integers is taken apart by scalar instructions, which run beside the vector units.
//
// The codes are not in the order of the columns: whatever 64 bytes of the block give by shifts and
// masks alone is one register, and x is loaded in the order that meets it (kFirst, kSecond).
#ifndef MILLRACE_KERNELS_MATMUL_CHUNKS_VNNI_INC_H_
#define MILLRACE_KERNELS_MATMUL_CHUNKS_VNNI_INC_H_

#include "kernels/matmul_common.inc.h"
#include "kernels/matmul_parts_vnni.inc.h"

namespace millrace {
namespace {

constexpr int kChunk = 256;  // columns

// Register k of a chunk's codes holds columns [32 * kFirst[k], +32) and then [32 * kSecond[k],
// +32).
struct NaturalOrder {
  static constexpr int kFirst[4] = {0, 2, 4, 6}, kSecond[4] = {1, 3, 5, 7};
};
struct NibbleOrder {  // Q4_K, Q5_K: low nibbles of 64 bytes, then the high ones
  static constexpr int kFirst[4] = {0, 1, 4, 5}, kSecond[4] = {2, 3, 6, 7};
};
struct HalvesOrder {  // Q2_K, Q3_K: the same bit pair of both 32-byte halves
  static constexpr int kFirst[4] = {0, 1, 2, 3}, kSecond[4] = {4, 5, 6, 7};
};

// Sub-blocks of 32: `scale` holds eight scales s, then eight values l; of 16: sixteen scales in
// `scale` and sixteen l in `low`. A chunk contributes sum(s * dx * dot(code, xq)) - kLow * sum(l *
// sum(x)).
struct WeightChunk {
  __m512i code[4];
  __m512 scale, low;
};

template <DType T>
struct ChunkCodec;

template <>
struct ChunkCodec<DType::kQ8_0> : NaturalOrder {
  static constexpr float kLow = 128;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      w.code[k] = _mm512_xor_si512(TwoHalves(b + 68 * k + 2, b + 68 * k + 36), Bytes512(0x80));
    }
    w.scale = EightScalesTwice(b, 34);
    return w;
  }
};

// Q4_0, Q4_1: kBytes a block, nibbles after a header.
template <int kBytes, int kHeader>
inline void LoadNibbleBlocks(const uint8_t* b, WeightChunk& w) {
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const uint8_t* p = b + 2 * kBytes * k + kHeader;
    w.code[k] = TwoBlocksOfNibbles(p, p + kBytes);
  }
}

// Q5_0, Q5_1: the same with 32 fifth bits right before the nibbles.
template <int kBytes, int kHeader>
inline void LoadFiveBitBlocks(const uint8_t* b, WeightChunk& w) {
  LoadNibbleBlocks<kBytes, kHeader>(b, w);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    uint32_t first, second;
    memcpy(&first, b + 2 * kBytes * k + kHeader - 4, 4);
    memcpy(&second, b + 2 * kBytes * k + kBytes + kHeader - 4, 4);
    const __mmask64 fifth = _cvtu64_mask64(first | uint64_t{second} << 32);
    w.code[k] = _mm512_mask_add_epi8(w.code[k], fifth, w.code[k], Bytes512(16));
  }
}

template <>
struct ChunkCodec<DType::kQ4_0> : NaturalOrder {
  static constexpr float kLow = 8;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    LoadNibbleBlocks<18, 2>(b, w);
    w.scale = EightScalesTwice(b, 18);
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ4_1> : NaturalOrder {
  static constexpr float kLow = -1;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    LoadNibbleBlocks<20, 4>(b, w);
    w.scale = EightScalesAndMinima(b, 20);
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ5_0> : NaturalOrder {
  static constexpr float kLow = 16;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    LoadFiveBitBlocks<22, 6>(b, w);
    w.scale = EightScalesTwice(b, 22);
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ5_1> : NaturalOrder {
  static constexpr float kLow = -1;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    LoadFiveBitBlocks<24, 8>(b, w);
    w.scale = EightScalesAndMinima(b, 24);
    return w;
  }
};

// Header of Q4_K and Q5_K (see UnpackSixBitPairs): eight scales, eight minima.
inline __m512 SixBitScales(const uint8_t* b) {
  uint32_t p[3];  // one by one: as 12 bytes they go through memory
  memcpy(&p[0], b + 4, 4);
  memcpy(&p[1], b + 8, 4);
  memcpy(&p[2], b + 12, 4);
  uint64_t s = (p[0] & 0x3f3f3f3fu) | uint64_t{(p[2] & 0x0f0f0f0fu) | ((p[0] >> 2) & 0x30303030u)}
                                          << 32;
  uint64_t m = (p[1] & 0x3f3f3f3fu) |
               uint64_t{((p[2] >> 4) & 0x0f0f0f0fu) | ((p[1] >> 2) & 0x30303030u)} << 32;
  asm(""
      : "+r"(s), "+r"(m));  // or the compiler does it with three times as many vector instructions
  const __m128i both = _mm_set_epi64x(static_cast<int64_t>(m), static_cast<int64_t>(s));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(both)), PairOfHalves(b));
}

template <>
struct ChunkCodec<DType::kQ4_K> : NibbleOrder {
  static constexpr float kLow = 1;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    const __m512i first = Load512(b + 16), second = Load512(b + 80), mask = Bytes512(15);
    w.code[0] = _mm512_and_si512(first, mask);
    w.code[1] = _mm512_and_si512(_mm512_srli_epi32(first, 4), mask);
    w.code[2] = _mm512_and_si512(second, mask);
    w.code[3] = _mm512_and_si512(_mm512_srli_epi32(second, 4), mask);
    w.scale = SixBitScales(b);
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ5_K> : NibbleOrder {
  static constexpr float kLow = 1;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    const __m512i first = Load512(b + 48), second = Load512(b + 112), high = BothHalves(b + 16);
    const __m512i mask = Bytes512(15), bit = Bytes512(16);
    const auto code = [&](__m512i nibbles, __m512i fifth) {
      return MaskedOr(fifth, bit, _mm512_and_si512(nibbles, mask));
    };
    w.code[0] = code(first, ShiftHalves<4, 2>(high));
    w.code[1] = code(_mm512_srli_epi32(first, 4), ShiftHalves<3, 1>(high));
    w.code[2] = code(second, ShiftHalves<0, -2>(high));
    w.code[3] = code(_mm512_srli_epi32(second, 4), ShiftHalves<-1, -3>(high));
    w.scale = SixBitScales(b);
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ6_K> : NaturalOrder {
  static constexpr float kLow = 32;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    const __m512i mask = Bytes512(15), top = Bytes512(0x30);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i low = Load512(b + 64 * half), high = BothHalves(b + 128 + 32 * half);
      w.code[2 * half] = MaskedOr(ShiftHalves<4, 2>(high), top, _mm512_and_si512(low, mask));
      w.code[2 * half + 1] = MaskedOr(ShiftHalves<0, -2>(high), top,
                                      _mm512_and_si512(_mm512_srli_epi32(low, 4), mask));
    }
    const __m128i scales = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 192));
    w.scale = w.low =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), OneHalf(b + 208));
    return w;
  }
};

template <>
struct ChunkCodec<DType::kQ3_K> : HalvesOrder {
  static constexpr float kLow = 4;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    const __m512i pairs = Load512(b + 32), third = BothHalves(b);
    const __m512i mask = Bytes512(3), bit = Bytes512(4);
    w.code[0] = MaskedOr(ShiftHalves<2, -2>(third), bit, _mm512_and_si512(pairs, mask));
    w.code[1] = MaskedOr(ShiftHalves<1, -3>(third), bit,
                         _mm512_and_si512(_mm512_srli_epi32(pairs, 2), mask));
    w.code[2] = MaskedOr(ShiftHalves<0, -4>(third), bit,
                         _mm512_and_si512(_mm512_srli_epi32(pairs, 4), mask));
    w.code[3] = MaskedOr(ShiftHalves<-1, -5>(third), bit,
                         _mm512_and_si512(_mm512_srli_epi32(pairs, 6), mask));
    w.scale = w.low =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu8_epi32(Scales(b + 96)),
                                                          _mm512_set1_epi32(32))),
                      OneHalf(b + 108));
    return w;
  }
  // Sixteen 6-bit scales from 12 bytes: low nibbles of bytes 0-7, then their high nibbles; two more
  // bits from bytes 8-11, two apart.
  static inline __m128i Scales(const uint8_t* p) {
    uint64_t low;
    uint32_t high;
    memcpy(&low, p, 8);
    memcpy(&high, p + 8, 4);
    constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0fu, kPairs = 0x3030303030303030u;
    const uint64_t first = uint64_t{high} << 4 | uint64_t{high} << 34;
    const uint64_t second = uint64_t{high} | uint64_t{high} << 30;
    return _mm_set_epi64x(static_cast<int64_t>(((low >> 4) & kNibbles) | (second & kPairs)),
                          static_cast<int64_t>((low & kNibbles) | (first & kPairs)));
  }
};

template <>
struct ChunkCodec<DType::kQ2_K> : HalvesOrder {
  static constexpr float kLow = 1;
  static inline WeightChunk Load(const uint8_t* b) {
    WeightChunk w;
    const __m512i pairs = Load512(b + 16), mask = Bytes512(3);
    w.code[0] = _mm512_and_si512(pairs, mask);
    w.code[1] = _mm512_and_si512(_mm512_srli_epi32(pairs, 2), mask);
    w.code[2] = _mm512_and_si512(_mm512_srli_epi32(pairs, 4), mask);
    w.code[3] = _mm512_and_si512(_mm512_srli_epi32(pairs, 6), mask);
    const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
    w.scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(15))),
                            OneHalf(b + 80));
    w.low = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_srli_epi32(both, 4)), OneHalf(b + 82));
    return w;
  }
};

// Which of a chunk's scales belongs to each lane of register k of codes (four codes a lane).
template <DType T>
inline __m512i ScaleLanes(int k) {
  const int a = ChunkCodec<T>::kFirst[k], b = ChunkCodec<T>::kSecond[k];
  if constexpr (Codec<T>::kSub == 32)
    return _mm512_set_epi32(b, b, b, b, b, b, b, b, a, a, a, a, a, a, a, a);
  const int c = 2 * a, d = 2 * b;
  return _mm512_set_epi32(d + 1, d + 1, d + 1, d + 1, d, d, d, d, c + 1, c + 1, c + 1, c + 1, c, c,
                          c, c);
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_CHUNKS_VNNI_INC_H_
