// Part of matmul_isa.inc.h: what the block formats are taken apart with on AVX-512.
#ifndef MILLRACE_KERNELS_MATMUL_PARTS_VNNI_INC_H_
#define MILLRACE_KERNELS_MATMUL_PARTS_VNNI_INC_H_

#include "kernels/matmul_common.inc.h"

namespace millrace {
namespace {

inline __m512i Bytes512(int b) { return _mm512_set1_epi8(static_cast<char>(b)); }
inline __m512i Load512(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline __m512i TwoHalves(const uint8_t* p, const uint8_t* q) {
  return _mm512_inserti64x4(
      _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)), 1);
}
inline __m512i BothHalves(const uint8_t* p) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// (a & mask) | b
inline __m512i MaskedOr(__m512i a, __m512i mask, __m512i b) {
  return _mm512_ternarylogic_epi32(a, mask, b, 0xea);
}
// Shifts the dwords of the low half by `low` bits and of the high half by `high`: left if positive,
// right if negative. What crosses a byte is for the caller to mask out.
template <int low, int high>
inline __m512i ShiftHalves(__m512i v) {
  const __m512i by =
      _mm512_inserti64x4(_mm512_set1_epi32(low & 31), _mm256_set1_epi32(high & 31), 1);
  return _mm512_rolv_epi32(v, by);
}

// Four halves `stride` bytes apart, side by side.
inline uint64_t FourHalves(const uint8_t* p, int stride) {
  return uint64_t{LoadU16(p)} | uint64_t{LoadU16(p + stride)} << 16 |
         uint64_t{LoadU16(p + 2 * stride)} << 32 | uint64_t{LoadU16(p + 3 * stride)} << 48;
}
inline __m512 EightScalesTwice(const uint8_t* p, int stride) {
  const __m128i halves = _mm_set_epi64x(static_cast<int64_t>(FourHalves(p + 4 * stride, stride)),
                                        static_cast<int64_t>(FourHalves(p, stride)));
  return _mm512_broadcast_f32x8(_mm256_cvtph_ps(halves));
}
inline __m512 EightScalesAndMinima(const uint8_t* p, int stride) {
  return _mm512_cvtph_ps(
      _mm256_set_epi64x(static_cast<int64_t>(FourHalves(p + 2 + 4 * stride, stride)),
                        static_cast<int64_t>(FourHalves(p + 2, stride)),
                        static_cast<int64_t>(FourHalves(p + 4 * stride, stride)),
                        static_cast<int64_t>(FourHalves(p, stride))));
}

// Two blocks' nibbles, 16 bytes at p and at q, as 64 codes in order.
inline __m512i TwoBlocksOfNibbles(const uint8_t* p, const uint8_t* q) {
  const __m512i first =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m512i both = _mm512_mask_broadcast_i32x4(
      first, 0xff00, _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
  const __m512i by = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);
  return _mm512_and_si512(_mm512_srlv_epi32(both, by), Bytes512(15));
}

// The f16 pair (d, dmin) at p as eight d, then eight dmin.
inline __m512 PairOfHalves(const uint8_t* p) {
  int32_t both;
  memcpy(&both, p, 4);
  const __m512i which = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_permutexvar_ps(which,
                               _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128(both))));
}
inline __m512 OneHalf(const uint8_t* p) {
  return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(LoadU16(p))));
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_PARTS_VNNI_INC_H_
