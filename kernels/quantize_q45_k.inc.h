// Q4_K and Q5_K: x = d * scale * code - dmin * minimum.
// Included by quantize_isa.inc.h only.
#include <limits>

#include "kernels/quantize_k.h"
#include "kernels/quantize_values.h"

namespace millrace {
namespace {

constexpr int kPairs = 8, kPairValues = 32, kMostSixBits = 63;

// A sub-block's scale and minimum before they become integers.
struct Pair {
  float scale = 0, minimum = 0;
};

// Sums over a sub-block for codes q.
struct CodeSums {
  double q = 0, qq = 0, qx = 0;
};

struct ValueSums {
  double w = 0, x = 0, xx = 0;
};

ValueSums SumValues(const float* x, const float* w) {
  F8 sw{}, sx{}, sxx{};
  for (int i = 0; i < kPairValues; i += 8) {
    const F8 vx = Load(x + i), vw = Load(w + i);
    sw += vw;
    sx += vw * vx;
    sxx += vw * vx * vx;
  }
  return {Sum(sw), Sum(sx), Sum(sxx)};
}

// Of the codes nearest for `pair`.
CodeSums SumCodes(const float* x, const float* w, const Pair& pair, float most_code) {
  const float inverse = pair.scale > 0 ? 1.0f / pair.scale : 0.0f;
  F8 sq{}, sqq{}, sqx{};
  for (int i = 0; i < kPairValues; i += 8) {
    const F8 vx = Load(x + i), vw = Load(w + i);
    const F8 q = Round(Clamp((vx + pair.minimum) * inverse, 0.0f, most_code));
    const F8 wq = vw * q;
    sq += wq;
    sqq += wq * q;
    sqx += wq * vx;
  }
  return {Sum(sq), Sum(sqq), Sum(sqx)};
}

// The best scale and minimum for fixed codes; `error` becomes their weighted squares.
Pair LeastSquares(const ValueSums& v, const CodeSums& c, double& error) {
  const double determinant = v.w * c.qq - c.q * c.q;
  double scale = 0, offset = 0;
  if (determinant > 1e-9 * v.w * c.qq) {
    scale = (v.w * c.qx - c.q * v.x) / determinant;
    offset = (c.qq * v.x - c.q * c.qx) / determinant;
  } else if (c.qq > 0) {
    scale = c.qx / c.qq;
  }
  if (offset > 0) {  // a minimum is never negative
    offset = 0;
    scale = c.qq > 0 ? c.qx / c.qq : 0;
  }
  if (scale < 0) {
    scale = 0;
    offset = std::min(0.0, v.x / v.w);
  }
  error = v.xx - 2 * (scale * c.qx + offset * v.x) + scale * scale * c.qq +
          2 * scale * offset * c.q + offset * offset * v.w;
  return {static_cast<float>(scale), static_cast<float>(-offset)};
}

Pair FindPair(const float* x, const float* w, int most_code) {
  constexpr float kStarts[] = {0.0f, -1.0f, -0.6f, -0.3f, 0.3f, 0.6f};
  constexpr int kTurns = 3;
  float low = std::min(0.0f, x[0]), high = x[0];
  for (int i = 1; i < kPairValues; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  Pair best{0.0f, -low};
  if (!(high > low)) return best;
  const float most = static_cast<float>(most_code);
  const ValueSums values = SumValues(x, w);
  double least = std::numeric_limits<double>::infinity();  // may come out below zero by rounding
  for (float start : kStarts) {
    Pair pair{(high - low) / (most + start), -low};
    for (int turn = 0; turn < kTurns; ++turn) {
      double error = 0;
      pair = LeastSquares(values, SumCodes(x, w, pair, most), error);
      if (error >= least) continue;
      least = error;
      best = pair;
    }
  }
  return best;
}

// A block of eight sub-blocks under way.
struct PairBlock {
  HalfScale d, dmin;
  int scale[kPairs] = {}, minimum[kPairs] = {};
  double error = 0;
};

// Weighted squares of the nearest codes.
float PairError(const float* x, const float* w, float scale, float minimum, float most_code) {
  const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
  F8 sum{};
  for (int i = 0; i < kPairValues; i += 8) {
    const F8 vx = Load(x + i);
    const F8 q = Round(Clamp((vx + minimum) * inverse, 0.0f, most_code));
    const F8 off = vx - (q * scale - minimum);
    sum += Load(w + i) * off * off;
  }
  return Sum(sum);
}

// Integer scales and minima for the block's d and dmin: the nearest to `pairs` or next to it.
void ChooseIntegers(const Values& v, const Pair* pairs, int most_code, PairBlock& block) {
  const float most = static_cast<float>(most_code);
  block.error = 0;
  for (int j = 0; j < kPairs; ++j) {
    const float *x = v.x + kPairValues * j, *w = v.w + kPairValues * j;
    const int scale = NearestInteger(pairs[j].scale, block.d.value, 0, kMostSixBits);
    const int minimum = NearestInteger(pairs[j].minimum, block.dmin.value, 0, kMostSixBits);
    float least = std::numeric_limits<float>::infinity();
    for (int s = std::max(0, scale - 1); s <= std::min(kMostSixBits, scale + 1); ++s) {
      for (int m = std::max(0, minimum - 1); m <= std::min(kMostSixBits, minimum + 1); ++m) {
        const float error = PairError(x, w, block.d.value * static_cast<float>(s),
                                      block.dmin.value * static_cast<float>(m), most);
        if (error >= least) continue;
        least = error;
        block.scale[j] = s;
        block.minimum[j] = m;
      }
    }
    block.error += least;
  }
}

uint8_t CodeOf(float x, float scale, float minimum, int most_code) {
  if (!(scale > 0)) return 0;
  const float code = std::clamp((x + minimum) / scale, 0.0f, static_cast<float>(most_code));
  return static_cast<uint8_t>(Round(code));
}

void PairCodes(const Values& v, const PairBlock& block, int most_code, uint8_t* codes) {
  for (int i = 0; i < kSuperBlock; ++i) {
    const int j = i / kPairValues;
    codes[i] = CodeOf(v.x[i], block.d.value * static_cast<float>(block.scale[j]),
                      block.dmin.value * static_cast<float>(block.minimum[j]), most_code);
  }
}

// The best d and dmin for the block's integers and codes. False: they are not determined.
bool RefitPairs(const Values& v, const PairBlock& block, int most_code, float& d, float& dmin) {
  uint8_t codes[kSuperBlock];
  PairCodes(v, block, most_code, codes);
  double uu = 0, um = 0, mm = 0, ux = 0, mx = 0;  // of u = scale * code and the minima
  for (int i = 0; i < kSuperBlock; ++i) {
    const int j = i / kPairValues;
    const double u = block.scale[j] * codes[i], m = block.minimum[j], w = v.w[i];
    uu += w * u * u;
    um += w * u * m;
    mm += w * m * m;
    ux += w * u * v.x[i];
    mx += w * m * v.x[i];
  }
  const double determinant = uu * mm - um * um;
  if (uu == 0) return false;
  if (determinant > 1e-9 * uu * mm) {
    d = static_cast<float>((mm * ux - um * mx) / determinant);
    dmin = static_cast<float>((um * ux - uu * mx) / determinant);
  } else {
    d = static_cast<float>(ux / uu);
    dmin = 0;
  }
  return d > 0 && dmin >= 0;
}

PairBlock FindPairs(const Values& v, int most_code) {
  constexpr int kRefits = 2;
  Pair pairs[kPairs];
  Pair largest;
  for (int j = 0; j < kPairs; ++j) {
    pairs[j] = FindPair(v.x + kPairValues * j, v.w + kPairValues * j, most_code);
    largest.scale = std::max(largest.scale, pairs[j].scale);
    largest.minimum = std::max(largest.minimum, pairs[j].minimum);
  }
  PairBlock best;
  best.d = ToHalfScale(largest.scale / kMostSixBits, kMostSixBits, v.exponent);
  best.dmin = ToHalfScale(largest.minimum / kMostSixBits, kMostSixBits, v.exponent);
  if (!best.d.finite() || !best.dmin.finite()) return best;
  ChooseIntegers(v, pairs, most_code, best);
  for (int i = 0; i < kRefits; ++i) {
    PairBlock next;
    float d = 0, dmin = 0;
    if (!RefitPairs(v, best, most_code, d, dmin)) break;
    next.d = ToHalfScale(d, kMostSixBits, v.exponent);
    next.dmin = ToHalfScale(dmin, kMostSixBits, v.exponent);
    if (!next.d.finite() || !next.dmin.finite()) break;
    ChooseIntegers(v, pairs, most_code, next);
    if (next.error >= best.error) break;
    best = next;
  }
  return best;
}

// The 12 bytes of eight six-bit scales and minima, as kernels/quant_blocks.h describes them.
void PackSixBitPairs(const int* scale, const int* minimum, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<uint8_t>(scale[j] | (scale[j + 4] >> 4) << 6);
    out[4 + j] = static_cast<uint8_t>(minimum[j] | (minimum[j + 4] >> 4) << 6);
    out[8 + j] = static_cast<uint8_t>((scale[j + 4] & 15) | (minimum[j + 4] & 15) << 4);
  }
}

// `high`: where fifth bits go, or null for four-bit codes.
void PackPairs(const PairBlock& block, const uint8_t* codes, uint8_t* header, uint8_t* high,
               uint8_t* nibbles) {
  std::memcpy(header, &block.d.bits, 2);
  std::memcpy(header + 2, &block.dmin.bits, 2);
  PackSixBitPairs(block.scale, block.minimum, header + 4);
  for (int j = 0; j < kPairs; j += 2) {
    const uint8_t *even = codes + kPairValues * j, *odd = even + kPairValues;
    for (int i = 0; i < kPairValues; ++i) {
      nibbles[kPairValues * (j / 2) + i] =
          static_cast<uint8_t>((even[i] & 15) | (odd[i] & 15) << 4);
      if (high == nullptr) continue;
      if (even[i] > 15) high[i] |= static_cast<uint8_t>(1 << j);
      if (odd[i] > 15) high[i] |= static_cast<uint8_t>(2 << j);
    }
  }
}

bool QuantizeQ4K(const float* x, uint8_t* out) {
  constexpr int kBytes = 144, kMostCode = 15;
  std::memset(out, 0, kBytes);
  const Values v = Normalised(x);
  if (v.zero) return true;
  const PairBlock block = FindPairs(v, kMostCode);
  uint8_t codes[kSuperBlock];
  PairCodes(v, block, kMostCode, codes);
  PackPairs(block, codes, out, nullptr, out + 16);
  return block.d.finite() && block.dmin.finite();
}

bool QuantizeQ5K(const float* x, uint8_t* out) {
  constexpr int kBytes = 176, kMostCode = 31;
  std::memset(out, 0, kBytes);
  const Values v = Normalised(x);
  if (v.zero) return true;
  const PairBlock block = FindPairs(v, kMostCode);
  uint8_t codes[kSuperBlock];
  PairCodes(v, block, kMostCode, codes);
  PackPairs(block, codes, out, out + 16, out + 48);
  return block.d.finite() && block.dmin.finite();
}

}  // namespace
}  // namespace millrace
