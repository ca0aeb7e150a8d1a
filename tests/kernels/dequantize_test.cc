// Blocks written by hand from the format descriptions, value by value: independent of the codecs.
#include <gtest/gtest.h>

#include "kernels/matmul.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

std::vector<float> Dequantize(DType dtype, const std::vector<uint8_t>& block) {
  std::vector<float> out(static_cast<size_t>(Info(dtype).block_elements));
  EXPECT_EQ(block.size(), static_cast<size_t>(Info(dtype).block_bytes));
  DequantizeRow(dtype, block.data(), Info(dtype).block_elements, out.data());
  return out;
}

void PutHalf(std::vector<uint8_t>& b, size_t at, float v) {
  const uint16_t h = FloatToHalf(v);
  std::memcpy(&b[at], &h, 2);
}

std::vector<uint8_t> RandomBlock(DType dtype, uint64_t seed) {
  std::mt19937_64 rng(seed);
  return RandomWeights(dtype, 1, Info(dtype).block_elements, rng);
}

float HalfAt(const std::vector<uint8_t>& b, size_t at) { return HalfToFloat(LoadU16(&b[at])); }

TEST(DequantizeTest, Q8_0IsScaleTimesSignedByte) {
  std::vector<uint8_t> b = RandomBlock(DType::kQ8_0, 1);
  b[2] = 0x80;  // -128
  const auto y = Dequantize(DType::kQ8_0, b);
  for (int i = 0; i < 32; ++i) {
    EXPECT_FLOAT_EQ(y[i], HalfAt(b, 0) * static_cast<int8_t>(b[2 + i]));
  }
}

TEST(DequantizeTest, FourBitTypes) {
  const std::vector<uint8_t> b0 = RandomBlock(DType::kQ4_0, 2), b1 = RandomBlock(DType::kQ4_1, 3);
  const auto y0 = Dequantize(DType::kQ4_0, b0), y1 = Dequantize(DType::kQ4_1, b1);
  for (int i = 0; i < 32; ++i) {
    const int q0 = i < 16 ? b0[2 + i] & 15 : b0[2 + i - 16] >> 4;
    const int q1 = i < 16 ? b1[4 + i] & 15 : b1[4 + i - 16] >> 4;
    EXPECT_FLOAT_EQ(y0[i], HalfAt(b0, 0) * static_cast<float>(q0 - 8));
    EXPECT_NEAR(y1[i], HalfAt(b1, 0) * static_cast<float>(q1) + HalfAt(b1, 2), 1e-7);
  }
}

TEST(DequantizeTest, FiveBitTypes) {
  const std::vector<uint8_t> b0 = RandomBlock(DType::kQ5_0, 4), b1 = RandomBlock(DType::kQ5_1, 5);
  const auto y0 = Dequantize(DType::kQ5_0, b0), y1 = Dequantize(DType::kQ5_1, b1);
  for (int i = 0; i < 32; ++i) {
    const int h0 = (b0[2 + i / 8] >> (i % 8)) & 1, h1 = (b1[4 + i / 8] >> (i % 8)) & 1;
    const int q0 = (i < 16 ? b0[6 + i] & 15 : b0[6 + i - 16] >> 4) + 16 * h0;
    const int q1 = (i < 16 ? b1[8 + i] & 15 : b1[8 + i - 16] >> 4) + 16 * h1;
    EXPECT_FLOAT_EQ(y0[i], HalfAt(b0, 0) * static_cast<float>(q0 - 16));
    EXPECT_NEAR(y1[i], HalfAt(b1, 0) * static_cast<float>(q1) + HalfAt(b1, 2), 1e-7);
  }
}

// Scale and minimum j of the 12 packed bytes, bit by bit.
std::pair<int, int> SixBitPair(const uint8_t* p, int j) {
  if (j < 4) return {p[j] % 64, p[j + 4] % 64};
  return {p[j + 4] % 16 + 16 * (p[j - 4] / 64), p[j + 4] / 16 + 16 * (p[j] / 64)};
}

TEST(DequantizeTest, Q4_KAndQ5_K) {
  const std::vector<uint8_t> b4 = RandomBlock(DType::kQ4_K, 6), b5 = RandomBlock(DType::kQ5_K, 7);
  const auto y4 = Dequantize(DType::kQ4_K, b4), y5 = Dequantize(DType::kQ5_K, b5);
  for (int i = 0; i < 256; ++i) {
    const int sub = i / 32, byte = 32 * (i / 64) + i % 32;
    const auto [s4, m4] = SixBitPair(&b4[4], sub);
    const auto [s5, m5] = SixBitPair(&b5[4], sub);
    const int q4 = sub % 2 ? b4[16 + byte] >> 4 : b4[16 + byte] & 15;
    const int q5 = (sub % 2 ? b5[48 + byte] >> 4 : b5[48 + byte] & 15) +
                   16 * ((b5[16 + i % 32] >> sub) & 1);
    EXPECT_NEAR(y4[i], HalfAt(b4, 0) * s4 * q4 - HalfAt(b4, 2) * m4, 1e-5);
    EXPECT_NEAR(y5[i], HalfAt(b5, 0) * s5 * q5 - HalfAt(b5, 2) * m5, 1e-5);
  }
}

TEST(DequantizeTest, Q6_K) {
  const std::vector<uint8_t> b = RandomBlock(DType::kQ6_K, 8);
  const auto y = Dequantize(DType::kQ6_K, b);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, part = i % 128 / 32, l = i % 32;
    const int low_byte = b[64 * half + l + (part % 2 ? 32 : 0)];
    const int low = part < 2 ? low_byte & 15 : low_byte >> 4;
    const int high = (b[128 + 32 * half + l] >> (2 * part)) & 3;
    const int scale = static_cast<int8_t>(b[192 + i / 16]);
    EXPECT_NEAR(y[i], HalfAt(b, 208) * scale * (low + 16 * high - 32), 1e-4);
  }
}

TEST(DequantizeTest, Q3_K) {
  const std::vector<uint8_t> b = RandomBlock(DType::kQ3_K, 9);
  const auto y = Dequantize(DType::kQ3_K, b);
  for (int i = 0; i < 256; ++i) {
    const int j = i / 16;
    const int low = j < 8 ? b[96 + j] & 15 : b[96 + j - 8] >> 4;
    const int scale = low + 16 * ((b[104 + j % 4] >> (2 * (j / 4))) & 3) - 32;
    const int two = (b[32 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    const int third = (b[i % 32] >> (i / 32)) & 1;
    EXPECT_NEAR(y[i], HalfAt(b, 108) * scale * (two - (third ? 0 : 4)), 1e-5);
  }
}

TEST(DequantizeTest, Q2_K) {
  const std::vector<uint8_t> b = RandomBlock(DType::kQ2_K, 10);
  const auto y = Dequantize(DType::kQ2_K, b);
  for (int i = 0; i < 256; ++i) {
    const int two = (b[16 + 32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
    EXPECT_NEAR(y[i],
                HalfAt(b, 80) * (b[i / 16] & 15) * two - HalfAt(b, 82) * (b[i / 16] >> 4), 1e-6);
  }
}

TEST(Fp16Test, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float f = HalfToFloat(static_cast<uint16_t>(h));
    if (std::isnan(f)) continue;
    EXPECT_EQ(FloatToHalf(f), h);
  }
}

TEST(Fp16Test, RoundsToNearestEven) {
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 1.0f / 2048)), 1.0f);             // tie to even
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 3.0f / 2048)), 1.0f + 1.0f / 512);
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(5.9604645e-8f), 1);
  EXPECT_EQ(Bf16ToFloat(FloatToBf16(1.00390625f)), 1.0f);
}

TEST(DequantizeTest, PlainTypesWiden) {
  std::vector<uint8_t> b(2);
  PutHalf(b, 0, -1.5f);
  float f = 0;
  DequantizeRow(DType::kF16, b.data(), 1, &f);
  EXPECT_EQ(f, -1.5f);
}

}  // namespace
}  // namespace millrace
