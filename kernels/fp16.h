// IEEE half and bfloat16 conversions, one value at a time, exact and round-to-nearest-even.
// Internal linkage on purpose: translation units built for different instruction sets include this.
#ifndef MILLRACE_KERNELS_FP16_H_
#define MILLRACE_KERNELS_FP16_H_

#include <stdint.h>
#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace millrace {

static inline float BitsToFloat(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint32_t FloatToBits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

// Widens a half: subnormals, infinities and NaNs included.
static inline float HalfToFloat(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#endif
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return BitsToFloat(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
  // Scaling by 2^112 moves the exponent bias from 15 to 127 and normalises subnormals.
  const float magnitude = BitsToFloat(rest << 13) * 5.192296858534828e33f;
  return BitsToFloat(sign | FloatToBits(magnitude));
}

static inline uint16_t FloatToHalf(float f) {
  const uint32_t bits = FloatToBits(f);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;              // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;             // rounds to 65536 or more
  if (magnitude < 0x38800000u) {                                   // subnormal half or zero
    const float shifted = BitsToFloat(magnitude) + 0.5f;           // ulp of 0.5 is 2^-24
    return sign | static_cast<uint16_t>(FloatToBits(shifted) - 0x3f000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return sign | static_cast<uint16_t>((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

static inline float Bf16ToFloat(uint16_t h) {
  return BitsToFloat(static_cast<uint32_t>(h) << 16);
}

static inline uint16_t FloatToBf16(float f) {
  const uint32_t bits = FloatToBits(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline uint16_t LoadU16(const void* p) {
  uint16_t v;
  memcpy(&v, p, 2);
  return v;
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_FP16_H_
