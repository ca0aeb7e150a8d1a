// Q6_K: x = d * scale * (code - 32).
// Included by quantize_isa.inc.h only.
#include <limits>

#include "kernels/quantize_k.h"
#include "kernels/quantize_values.h"

namespace millrace {
namespace {

constexpr int kSixes = 16, kSixValues = 16;
constexpr float kLeastSix = -32, kMostSix = 31;

struct SixBlock {
  HalfScale d;
  int scale[kSixes] = {};
  double error = 0;
};

// The best scale of a sub-block.
float FindSix(const float* x, const float* w) {
  // What the largest magnitude is divided by.
  constexpr float kStarts[] = {-32.0f, -33.0f, -32.5f, -31.5f, -31.0f, -30.0f, 31.0f, 31.5f, 30.0f};
  constexpr int kTurns = 2;
  float extreme = 0;
  for (int i = 0; i < kSixValues; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  // Far below the block's other values nothing is gained, and a reciprocal may pass f32.
  if (std::fabs(extreme) < 1e-20f) return 0;
  float best = 0;
  double most = 0;  // of what the sum of squares loses
  for (float start : kStarts) {
    float scale = extreme / start;
    for (int turn = 0; turn < kTurns; ++turn) {
      const float inverse = 1.0f / scale;
      F8 sqq{}, sqx{};
      for (int i = 0; i < kSixValues; i += 8) {
        const F8 vx = Load(x + i);
        const F8 q = Round(Clamp(vx * inverse, kLeastSix, kMostSix));
        const F8 wq = Load(w + i) * q;
        sqq += wq * q;
        sqx += wq * vx;
      }
      const double qq = Sum(sqq), qx = Sum(sqx);
      if (!(qq > 0) || qx == 0) break;
      scale = static_cast<float>(qx / qq);
      if (qx * qx / qq <= most) continue;
      most = qx * qx / qq;
      best = scale;
    }
  }
  return best;
}

float SixError(const float* x, const float* w, float scale) {
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  F8 sum{};
  for (int i = 0; i < kSixValues; i += 8) {
    const F8 vx = Load(x + i);
    const F8 off = vx - Round(Clamp(vx * inverse, kLeastSix, kMostSix)) * scale;
    sum += Load(w + i) * off * off;
  }
  return Sum(sum);
}

void ChooseSixes(const Values& v, const float* scales, SixBlock& block) {
  block.error = 0;
  for (int j = 0; j < kSixes; ++j) {
    const int near = NearestInteger(scales[j], block.d.value, -128, 127);
    float least = std::numeric_limits<float>::infinity();
    for (int s = std::max(-128, near - 1); s <= std::min(127, near + 1); ++s) {
      const float error = SixError(v.x + kSixValues * j, v.w + kSixValues * j,
                                   block.d.value * static_cast<float>(s));
      if (error >= least) continue;
      least = error;
      block.scale[j] = s;
    }
    block.error += least;
  }
}

int SixCode(float x, float scale) {
  if (scale == 0) return 0;
  return static_cast<int>(Round(std::clamp(x / scale, kLeastSix, kMostSix)));
}

float RefitSixes(const Values& v, const SixBlock& block) {
  double uu = 0, ux = 0;
  for (int i = 0; i < kSuperBlock; ++i) {
    const int scale = block.scale[i / kSixValues];
    const double u = scale * SixCode(v.x[i], block.d.value * static_cast<float>(scale));
    uu += v.w[i] * u * u;
    ux += v.w[i] * u * v.x[i];
  }
  return uu > 0 ? static_cast<float>(ux / uu) : 0.0f;
}

// `most`: the integer that the largest scale becomes.
SixBlock SixesFrom(const Values& v, const float* scales, float largest, int most) {
  constexpr int kRefits = 2;
  SixBlock best;
  best.d = ToHalfScale(largest / static_cast<float>(most), std::abs(most), v.exponent);
  if (!best.d.finite()) return best;
  ChooseSixes(v, scales, best);
  for (int i = 0; i < kRefits; ++i) {
    SixBlock next;
    next.d = ToHalfScale(RefitSixes(v, best), std::abs(most), v.exponent);
    if (!next.d.finite() || next.d.value == 0) break;
    ChooseSixes(v, scales, next);
    if (next.error >= best.error) break;
    best = next;
  }
  return best;
}

void PackSixes(const Values& v, const SixBlock& block, uint8_t* out) {
  for (int i = 0; i < kSuperBlock; ++i) {
    const int scale = block.scale[i / kSixValues];
    const int code = 32 + SixCode(v.x[i], block.d.value * static_cast<float>(scale));
    const int half = i / 128, part = i % 128 / 32, l = i % 32;
    uint8_t& low = out[64 * half + 32 * (part % 2) + l];
    low = static_cast<uint8_t>(low | (code & 15) << (part < 2 ? 0 : 4));
    uint8_t& high = out[128 + 32 * half + l];
    high = static_cast<uint8_t>(high | (code >> 4) << (2 * part));
  }
  for (int j = 0; j < kSixes; ++j) out[192 + j] = static_cast<uint8_t>(block.scale[j]);
  std::memcpy(out + 208, &block.d.bits, 2);
}

bool QuantizeQ6K(const float* x, uint8_t* out) {
  constexpr int kBytes = 210;
  std::memset(out, 0, kBytes);
  const Values v = Normalised(x);
  if (v.zero) return true;
  float scales[kSixes], largest = 0;
  for (int j = 0; j < kSixes; ++j) {
    scales[j] = FindSix(v.x + kSixValues * j, v.w + kSixValues * j);
    if (std::fabs(scales[j]) > std::fabs(largest)) largest = scales[j];
  }
  const SixBlock down = SixesFrom(v, scales, largest, -128);
  const SixBlock up = SixesFrom(v, scales, largest, 127);
  const SixBlock& block = up.d.finite() && up.error < down.error ? up : down;
  PackSixes(v, block, out);
  return block.d.finite();
}

}  // namespace
}  // namespace millrace
