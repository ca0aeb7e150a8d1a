// Vectors of the width this translation unit is compiled for, on the compiler's vector extensions.
// Included only by the per-instruction-set files; everything has internal linkage, so that code for
// one instruction set never replaces code for another at link time.
#ifndef MILLRACE_KERNELS_SIMD_H_
#define MILLRACE_KERNELS_SIMD_H_

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/fp16.h"

namespace millrace {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float VF __attribute__((vector_size(4 * kLanes)));
typedef int32_t VI __attribute__((vector_size(4 * kLanes)));

inline VF LoadF(const float* p) {
  VF v;
  memcpy(&v, p, sizeof(v));
  return v;
}
inline void StoreF(float* p, VF v) { memcpy(p, &v, sizeof(v)); }
inline VI LoadI(const void* p) {
  VI v;
  memcpy(&v, p, sizeof(v));
  return v;
}
inline VF SetF(float f) { return f - VF{}; }
inline VI SetI(int32_t i) { return i - VI{}; }
inline VF ToFloat(VI v) { return __builtin_convertvector(v, VF); }

inline float Sum(VF v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#endif
  float lanes[kLanes];
  memcpy(lanes, &v, sizeof(v));
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}

inline float Max(VF v) {
  float lanes[kLanes];
  memcpy(lanes, &v, sizeof(v));
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
  }
  return lanes[0];
}

// a * b + c, fused where the hardware has it.
inline VF Fma(VF a, VF b, VF c) {
#if defined(__AVX512F__)
  return (VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// acc[i] + sum over the four bytes of lane i of unsigned u times signed s.
inline VI DotU8S8(VI acc, VI u, VI s) {
#if defined(__AVX512F__)
  return (VI)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)u, (__m512i)s);
#elif defined(__AVX2__)
  // Even and odd bytes as 16-bit values: no saturation, unlike vpmaddubsw.
  const __m256i uu = (__m256i)u, ss = (__m256i)s;
  const __m256i u_even = _mm256_and_si256(uu, _mm256_set1_epi16(0x00ff));
  const __m256i u_odd = _mm256_srli_epi16(uu, 8);
  const __m256i s_even = _mm256_srai_epi16(_mm256_slli_epi16(ss, 8), 8);
  const __m256i s_odd = _mm256_srai_epi16(ss, 8);
  const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(u_even, s_even),
                                       _mm256_madd_epi16(u_odd, s_odd));
  return (VI)_mm256_add_epi32((__m256i)acc, sum);
#else
  uint8_t a[4 * kLanes];
  int8_t b[4 * kLanes];
  memcpy(a, &u, sizeof(a));
  memcpy(b, &s, sizeof(b));
  for (int i = 0; i < kLanes; ++i) {
    int32_t sum = 0;
    for (int j = 0; j < 4; ++j) sum += static_cast<int32_t>(a[4 * i + j]) * b[4 * i + j];
    acc[i] += sum;
  }
  return acc;
#endif
}

// kLanes consecutive halves or bfloat16 values as f32.
inline VF LoadHalf(const void* p) {
#if defined(__AVX512F__)
  return (VF)_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
#elif defined(__AVX2__) && defined(__F16C__)
  return (VF)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
#else
  VF v;
  for (int i = 0; i < kLanes; ++i) v[i] = HalfToFloat(LoadU16(static_cast<const char*>(p) + 2 * i));
  return v;
#endif
}

inline VF LoadBf16(const void* p) {
  typedef uint16_t VH __attribute__((vector_size(2 * kLanes)));
  VH h;
  memcpy(&h, p, sizeof(h));
  const VI wide = __builtin_convertvector(h, VI) << 16;
  VF v;
  memcpy(&v, &wide, sizeof(v));
  return v;
}

// e^x within 2 ulp for x in [-87, 88]; below that 0 (never a subnormal), above clamped.
// Cody-Waite reduction by ln 2 in two parts, then a degree-6 polynomial (minimax on [-ln2/2, ln2/2]).
inline VF Exp(VF x) {
  const VF low = SetF(-87.3f), high = SetF(88.3f);
  const VI below = x < low;
  x = x > high ? high : x;
  x = x < low ? low : x;
  VF k = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
  VI ki;
  memcpy(&ki, &k, sizeof(ki));
  k = k - 12582912.0f;
  VF r = Fma(k, SetF(-0.693359375f), x);
  r = Fma(k, SetF(2.12194440e-4f), r);
  VF p = SetF(1.9875691500e-4f);
  p = Fma(p, r, SetF(1.3981999507e-3f));
  p = Fma(p, r, SetF(8.3334519073e-3f));
  p = Fma(p, r, SetF(4.1665795894e-2f));
  p = Fma(p, r, SetF(1.6666665459e-1f));
  p = Fma(p, r, SetF(5.0000001201e-1f));
  p = Fma(p, r * r, r) + 1.0f;
  const VI exponent = (ki - 0x4b400000 + 127) << 23;
  VF scale;
  memcpy(&scale, &exponent, sizeof(scale));
  const VF y = p * scale;
  return below ? VF{} : y;
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_SIMD_H_
