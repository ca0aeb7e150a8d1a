#include "tools/synth_blocks.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr int kTableBits = 12;
constexpr size_t kTableSize = size_t{1} << kTableBits;

void FillRandomBytes(SplitMix& random, absl::Span<std::byte> out) {
  size_t i = 0;
  for (; i + 8 <= out.size(); i += 8) {
    const uint64_t word = random.Next();
    std::memcpy(out.data() + i, &word, 8);
  }
  const uint64_t word = random.Next();
  std::memcpy(out.data() + i, &word, out.size() - i);
}

// The normal distribution's quantile function, by bisection of erfc: it is called kTableSize times.
double NormalQuantile(double p) {
  double low = -6, high = 6;
  for (int i = 0; i < 60; ++i) {
    const double mid = 0.5 * (low + high);
    (0.5 * std::erfc(-mid / std::sqrt(2.0)) < p ? low : high) = mid;
  }
  return 0.5 * (low + high);
}

const std::vector<double>& NormalTable() {
  static const std::vector<double>* const table = [] {
    auto* t = new std::vector<double>(kTableSize);
    double squares = 0;
    for (size_t i = 0; i < kTableSize; ++i) {
      (*t)[i] = NormalQuantile((static_cast<double>(i) + 0.5) / kTableSize);
      squares += (*t)[i] * (*t)[i];
    }
    const double scale = std::sqrt(kTableSize / squares);
    for (double& v : *t) v *= scale;
    return t;
  }();
  return *table;
}

uint16_t BrainBits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Looks the table up with 12 random bits per value, five values per random word.
template <typename T, typename Convert>
void FillFloats(double mean, double sigma, SplitMix& random, absl::Span<std::byte> out,
                Convert convert) {
  std::vector<T> table(kTableSize);
  for (size_t i = 0; i < kTableSize; ++i) {
    table[i] = convert(static_cast<float>(mean + sigma * NormalTable()[i]));
  }
  const size_t count = out.size() / sizeof(T);
  for (size_t i = 0; i < count;) {
    uint64_t word = random.Next();
    for (int k = 0; k < 5 && i < count; ++k, ++i, word >>= kTableBits) {
      std::memcpy(out.data() + i * sizeof(T), &table[word & (kTableSize - 1)], sizeof(T));
    }
  }
}

void StoreHalf(std::byte* at, double value) {
  const uint16_t bits = HalfBits(static_cast<float>(value));
  std::memcpy(at, &bits, 2);
}

// Standard deviation of integers uniform over `n` consecutive values.
double UniformSigma(int n) { return std::sqrt((static_cast<double>(n) * n - 1) / 12.0); }

// Eight 6-bit scales from 32 to 63 and equal 6-bit minimums, packed as Q4_K and Q5_K pack them.
void StoreScalesAndMins(uint64_t random, std::byte* out) {
  uint8_t scale[8];
  for (int j = 0; j < 8; ++j, random >>= 5) scale[j] = static_cast<uint8_t>(32 + (random & 31));
  for (int j = 0; j < 4; ++j) {
    const uint8_t low = static_cast<uint8_t>(scale[j] | (scale[j + 4] >> 4) << 6);
    out[j] = out[j + 4] = std::byte{low};
    out[j + 8] = std::byte{static_cast<uint8_t>((scale[j + 4] & 15) | (scale[j + 4] & 15) << 4)};
  }
}

// Root mean square of 32..63 and of 8..15.
const double kScaleRms6 = std::sqrt(47.5 * 47.5 + 85.25);
const double kScaleRms4 = std::sqrt(11.5 * 11.5 + 5.25);

// The block's random bytes are there already; this sets the scales, so that the values have mean 0
// (a random sign, or a minimum that centres them) and standard deviation `sigma`. Layouts as in
// kernels/quant_blocks.h.
void SetScales(DType dtype, double sigma, uint64_t random, std::byte* block) {
  const double sign = random >> 63 ? -1.0 : 1.0;
  switch (dtype) {
    case DType::kQ8_0:
      StoreHalf(block, sign * sigma / UniformSigma(256));
      break;
    case DType::kQ4_0:
      StoreHalf(block, sign * sigma / UniformSigma(16));
      break;
    case DType::kQ5_0:
      StoreHalf(block, sign * sigma / UniformSigma(32));
      break;
    case DType::kQ4_1:
      StoreHalf(block, sigma / UniformSigma(16));
      StoreHalf(block + 2, -7.5 * sigma / UniformSigma(16));
      break;
    case DType::kQ5_1:
      StoreHalf(block, sigma / UniformSigma(32));
      StoreHalf(block + 2, -15.5 * sigma / UniformSigma(32));
      break;
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const int levels = dtype == DType::kQ4_K ? 16 : 32;
      const double d = sigma / (UniformSigma(levels) * kScaleRms6);
      StoreHalf(block, d);
      StoreHalf(block + 2, d * (levels - 1) / 2.0);
      StoreScalesAndMins(random, block + 4);
      break;
    }
    case DType::kQ6_K:  // 16 random int8 scales, values -32..31
      StoreHalf(block + 208, sigma / (UniformSigma(64) * UniformSigma(256)));
      break;
    case DType::kQ3_K:  // 16 random 6-bit scales less 32, values -4..3
      StoreHalf(block + 108, sigma / (UniformSigma(8) * UniformSigma(64)));
      break;
    case DType::kQ2_K: {
      for (int j = 0; j < 16; ++j, random >>= 3) {
        const uint8_t scale = static_cast<uint8_t>(8 + (random & 7));
        block[j] = std::byte{static_cast<uint8_t>(scale | scale << 4)};
      }
      const double d = sigma / (UniformSigma(4) * kScaleRms4);
      StoreHalf(block + 80, d);
      StoreHalf(block + 82, 1.5 * d);
      break;
    }
    default:
      MILLRACE_CHECK(false);
  }
}

}  // namespace

uint16_t HalfBits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::fabs(value);
  if (!(magnitude < 65520.0f))
    return static_cast<uint16_t>(sign | (value != value ? 0x7e00 : 0x7c00));
  if (magnitude < 6.103515625e-05f) {  // subnormal: a count of 2^-24
    return static_cast<uint16_t>(sign | std::lrint(static_cast<double>(magnitude) * 16777216.0));
  }
  const uint32_t m = bits & 0x7fffffff;
  const uint32_t rounded = m + 0xfff + ((m >> 13) & 1) - (112u << 23);
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

void FillRandomBlocks(DType dtype, double mean, double sigma, uint64_t seed,
                      absl::Span<std::byte> out) {
  SplitMix random(seed);
  switch (dtype) {
    case DType::kF32:
      FillFloats<float>(mean, sigma, random, out, [](float v) { return v; });
      return;
    case DType::kF16:
      FillFloats<uint16_t>(mean, sigma, random, out, HalfBits);
      return;
    case DType::kBF16:
      FillFloats<uint16_t>(mean, sigma, random, out, BrainBits);
      return;
    default:
      break;
  }
  const size_t bytes = static_cast<size_t>(Info(dtype).block_bytes);
  MILLRACE_CHECK(out.size() % bytes == 0);
  FillRandomBytes(random, out);
  for (size_t at = 0; at < out.size(); at += bytes) {
    SetScales(dtype, sigma, random.Next(), out.data() + at);
  }
}

}  // namespace millrace
