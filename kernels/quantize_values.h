// What the searches for blocks of K types share: eight lanes at a time in one order, a
// super-block's normalised values and weights, f16 scales. Internal linkage, as
// kernels/quant_blocks.h.
#ifndef MILLRACE_KERNELS_QUANTIZE_VALUES_H_
#define MILLRACE_KERNELS_QUANTIZE_VALUES_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/fp16.h"
#include "kernels/quantize_k.h"

namespace millrace {
namespace {

// Eight lanes at a time, in one order on every machine.
typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));

static inline F8 Load(const float* p) {
  F8 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
static inline float Sum(F8 v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
static inline F8 Clamp(F8 v, float low, float high) {
  v = v < low ? F8{} + low : v;
  return v > high ? F8{} + high : v;
}
// To the nearest integer, ties to even; |v| < 2^22.
constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: its unit in the last place is one
static inline F8 Round(F8 v) { return (v + kMagic) - kMagic; }
static inline float Round(float v) { return (v + kMagic) - kMagic; }

// A super-block scaled by a power of two to a largest magnitude in [1, 2), and its weights.
struct Values {
  float x[kSuperBlock];
  float w[kSuperBlock];
  int exponent = 0;  // true values are x * 2^exponent
  bool zero = false;
};

static inline Values Normalised(const float* x) {
  Values v;
  float largest = 0;
  for (int i = 0; i < kSuperBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
  v.zero = largest == 0;
  if (v.zero) return v;
  v.exponent = std::max(std::ilogb(largest), -120);  // f16 scales are zero far above that
  const float factor = std::ldexp(1.0f, -v.exponent);
  double squares = 0;
  for (int i = 0; i < kSuperBlock; ++i) {
    v.x[i] = x[i] * factor;
    squares += static_cast<double>(v.x[i]) * v.x[i];
  }
  const float rms = static_cast<float>(std::sqrt(squares / kSuperBlock));
  for (int i = 0; i < kSuperBlock; ++i) v.w[i] = rms + std::fabs(v.x[i]);
  return v;
}

// A block's f16 scale, and what it is in normalised values.
struct HalfScale {
  uint16_t bits = 0;
  float value = 0;
  bool finite() const { return (bits & 0x7c00) != 0x7c00; }
};

// The half nearest to `scale`, or the next larger one where integers up to `most` times it would
// not reach `most` times `scale`: near f16's smallest numbers.
static inline HalfScale ToHalfScale(float scale, int most, int exponent) {
  HalfScale half;
  const float wanted = std::ldexp(scale, exponent);
  half.bits = FloatToHalf(wanted);
  const float reach = std::fabs(HalfToFloat(half.bits)) * (static_cast<float>(most) + 0.5f);
  if (reach < std::fabs(wanted) * static_cast<float>(most)) ++half.bits;
  half.value = std::ldexp(HalfToFloat(half.bits), -exponent);
  return half;
}

static inline int NearestInteger(float value, float unit, int low, int high) {
  if (unit == 0) return 0;
  const float ratio = std::clamp(value / unit, static_cast<float>(low), static_cast<float>(high));
  return static_cast<int>(Round(ratio));
}

}  // namespace
}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANTIZE_VALUES_H_
