// What Quantize makes, read back by the kernels' own dequantiser (which dequantize_test.cc checks
// against the formats).
#include "kernels/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <string>
#include <tuple>

#include "kernels/matmul.h"
#include "kernels/quantize_k.h"
#include "tests/kernels/kernel_testing.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr int kCols = 256;
const char kModels[] = "../shared/models/";

std::vector<float> Read(DType dtype, const void* bytes, int64_t rows, int64_t cols) {
  std::vector<float> out(static_cast<size_t>(rows * cols));
  const auto* row = static_cast<const std::byte*>(bytes);
  for (int64_t r = 0; r < rows; ++r, row += RowBytes(dtype, cols).count()) {
    DequantizeRow(dtype, row, cols, &out[static_cast<size_t>(r * cols)]);
  }
  return out;
}

absl::StatusOr<std::vector<uint8_t>> QuantizedBytes(const WeightView& from, DType to,
                                                    int threads = 2) {
  ThreadPool pool(threads);
  std::vector<uint8_t> out(static_cast<size_t>(from.rows * RowBytes(to, from.cols).count()), 0xcc);
  const absl::Status status = Quantize(from, to, "blk.0.test", out.data(), pool);
  if (!status.ok()) return status;
  return out;
}

WeightView ViewOf(const std::vector<float>& values, int64_t cols = kCols) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size()) / cols, cols};
}

// The values after quantising.
std::vector<float> Through(const std::vector<float>& values, DType to) {
  const auto bytes = QuantizedBytes(ViewOf(values), to);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return bytes.ok() ? Read(to, bytes->data(), static_cast<int64_t>(values.size()) / kCols, kCols)
                    : std::vector<float>(values.size());
}

double RelativeRms(const std::vector<float>& x, const std::vector<float>& y) {
  double off = 0, all = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    off += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    all += static_cast<double>(x[i]) * x[i];
  }
  return std::sqrt(off / all);
}

// The largest error over the largest magnitude of its super-block that a type may make, and the
// relative error of gaussian values.
struct Bound {
  DType dtype;
  double largest, gaussian;
};
// A step is 1/127, 1/31, 1/31 and 1/15 of a (sub-)block's range, of which half is lost, and that
// the sub-blocks' scales are integers costs up to as much again; K types clip where the sum gains.
constexpr Bound kBounds[] = {{DType::kQ8_0, 0.0042, 0.0060},
                             {DType::kQ6_K, 0.040, 0.0175},
                             {DType::kQ5_K, 0.075, 0.0360},
                             {DType::kQ4_K, 0.150, 0.0725}};

TEST(QuantizeTest, EveryTypeStaysWithinItsBounds) {
  std::mt19937_64 rng(1);
  for (float sigma : {0.02f, 1.0f, 300.0f}) {
    const std::vector<float> x = RandomFloats(64 * kCols, rng, sigma);
    for (const Bound& bound : kBounds) {
      const std::vector<float> y = Through(x, bound.dtype);
      EXPECT_LT(RelativeRms(x, y), bound.gaussian) << DTypeName(bound.dtype);
      for (size_t block = 0; block < x.size(); block += kCols) {
        float largest = 0, off = 0;
        for (size_t i = block; i < block + kCols; ++i) {
          largest = std::max(largest, std::fabs(x[i]));
          off = std::max(off, std::fabs(x[i] - y[i]));
        }
        ASSERT_LT(off, bound.largest * largest) << DTypeName(bound.dtype) << " block " << block;
      }
    }
  }
}

TEST(QuantizeTest, MorePreciseTypesAreCloser) {
  std::mt19937_64 rng(2);
  const std::vector<float> x = RandomFloats(64 * kCols, rng);
  double before = 0;
  for (DType dtype : kQuantizeTypes) {
    const double error = RelativeRms(x, Through(x, dtype));
    EXPECT_GT(error, 1.3 * before) << DTypeName(dtype);
    before = error;
  }
}

// The published formula, as plain as it can be written.
TEST(QuantizeTest, Q8_0IsThePublishedFormulaByteByByte) {
  std::mt19937_64 rng(3);
  const std::vector<float> x = RandomFloats(64 * kCols, rng, 0.05f);
  const auto bytes = QuantizedBytes(ViewOf(x), DType::kQ8_0);
  ASSERT_TRUE(bytes.ok());
  for (size_t block = 0; block < x.size() / 32; ++block) {
    float largest = 0;
    for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[32 * block + i]));
    const float d = largest / 127;
    ASSERT_EQ(LoadU16(&(*bytes)[34 * block]), FloatToHalf(d));
    for (size_t i = 0; i < 32; ++i) {
      ASSERT_EQ(static_cast<int8_t>((*bytes)[34 * block + 2 + i]),
                static_cast<int>(std::round(x[32 * block + i] * (1.0f / d))));
    }
  }
}

// Random blocks in which the largest integer scales and the end codes are in use.
std::vector<uint8_t> FullRangeBlocks(DType dtype, int blocks, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::vector<uint8_t> bytes = RandomWeights(dtype, blocks, kCols, rng);
  const size_t size = static_cast<size_t>(RowBytes(dtype, kCols).count());
  const auto put = [](uint8_t* at, float v) {
    const uint16_t h = FloatToHalf(v);
    std::memcpy(at, &h, 2);
  };
  for (size_t n = 0; n < static_cast<size_t>(blocks); ++n) {
    uint8_t* b = &bytes[n * size];
    const float d = 0.001f * static_cast<float>(1 + n);
    if (dtype == DType::kQ8_0) {
      for (size_t at = 0; at < size; at += 34) {
        put(b + at, d);
        b[at + 2] = n % 2 == 0 ? 127 : 129;  // 127, -127
        for (size_t i = 3; i < 34; ++i) b[at + i] = b[at + i] == 128 ? 0 : b[at + i];
      }
    } else if (dtype == DType::kQ6_K) {
      put(b + 208, n % 3 == 0 ? -d : d);
      // Scales far from zero, codes -32 in every sub-block: the first nibble of each, upper bits
      // zero.
      for (int j = 0; j < 16; ++j) {
        b[192 + j] = static_cast<uint8_t>(b[192 + j] % 2 == 0 ? 40 + 5 * j : -45 - 5 * j);
        const int i = 16 * j, half = i / 128, part = i % 128 / 32, l = i % 32;
        b[64 * half + 32 * (part % 2) + l] &= part < 2 ? 0xf0 : 0x0f;
        b[128 + 32 * half + l] = static_cast<uint8_t>(b[128 + 32 * half + l] & ~(3 << (2 * part)));
      }
      b[192] = n % 2 == 0 ? 0x80 : 127;
      if (n % 2 != 0) {
        for (int j = 1; j < 16; ++j) b[192 + j] = static_cast<uint8_t>(20 + 4 * j);
      }
    } else {
      put(b, d);
      put(b + 2, 0.7f * d);
      b[4] |= 63;                                  // the first scale
      b[8] |= 63;                                  // and minimum
      for (int j = 1; j < 4; ++j) b[4 + j] |= 32;  // the others are not small
      for (int j = 0; j < 4; ++j) b[4 + j] |= 0x80;
      uint8_t* high = dtype == DType::kQ5_K ? b + 16 : nullptr;
      uint8_t* q = b + (high != nullptr ? 48 : 16);
      for (int j = 0; j < 4; ++j) {  // codes 0 and the largest in both of each 64 values
        q[32 * j] = 0;
        q[32 * j + 1] = 0xff;
      }
      if (high != nullptr) {
        high[0] = 0;
        high[1] = 0xff;
      }
    }
  }
  return bytes;
}

TEST(QuantizeTest, ValuesThatABlockStandsForAreFoundAgain) {
  constexpr int kBlocks = 60;
  for (DType dtype : kQuantizeTypes) {
    const std::vector<float> x =
        Read(dtype, FullRangeBlocks(dtype, kBlocks, 4).data(), kBlocks, kCols);
    const std::vector<float> y = Through(x, dtype);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(x[i], y[i]) << DTypeName(dtype) << " block " << i / kCols << " value " << i % kCols;
    }
  }
}

TEST(QuantizeTest, EverySourceTypeGivesWhatItsWidenedValuesGive) {
  std::mt19937_64 rng(5);
  for (DType source : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::vector<uint8_t> raw = RandomWeights(source, 5, kCols, rng);
    const std::vector<float> wide = Read(source, raw.data(), 5, kCols);
    for (DType dtype : kQuantizeTypes) {
      EXPECT_EQ(*QuantizedBytes({raw.data(), source, 5, kCols}, dtype),
                *QuantizedBytes(ViewOf(wide), dtype));
    }
  }
}

TEST(QuantizeTest, ThreadsAndRowsBesideDoNotMatter) {
  std::mt19937_64 rng(6);
  const std::vector<float> x = RandomFloats(100 * kCols, rng);
  for (DType dtype : kQuantizeTypes) {
    const std::vector<uint8_t> one = *QuantizedBytes(ViewOf(x), dtype, 1);
    EXPECT_EQ(one, *QuantizedBytes(ViewOf(x), dtype, 5));
    const std::vector<float> last(x.end() - kCols, x.end());
    const std::vector<uint8_t> alone = *QuantizedBytes(ViewOf(last), dtype);
    EXPECT_TRUE(
        std::equal(alone.begin(), alone.end(), one.end() - static_cast<long>(alone.size())));
  }
}

TEST(QuantizeTest, EveryInstructionSetMakesTheSameBytes) {
  std::mt19937_64 rng(8);
  const QuantizeKernels& plain = ScalarQuantizeKernels();
  for (CpuIsa isa : AvailableIsas()) {
    const QuantizeKernels& other = QuantizeKernelsFor(isa);
    for (int round = 0; round < 200; ++round) {
      const std::vector<float> x =
          RandomFloats(kCols, rng, std::pow(10.0f, static_cast<float>(round % 9 - 5)));
      for (const auto& [a, b, size] :
           {std::tuple(plain.q4_k, other.q4_k, 144), std::tuple(plain.q5_k, other.q5_k, 176),
            std::tuple(plain.q6_k, other.q6_k, 210)}) {
        std::vector<uint8_t> one(static_cast<size_t>(size), 1), two(static_cast<size_t>(size), 2);
        ASSERT_EQ(a(x.data(), one.data()), b(x.data(), two.data()));
        ASSERT_EQ(one, two) << CpuIsaName(isa) << " round " << round;
      }
    }
  }
}

TEST(QuantizeTest, ZerosConstantsAndOneOutlier) {
  for (DType dtype : kQuantizeTypes) {
    const DTypeInfo& type = Info(dtype);
    const std::vector<float> zeros(kCols, 0.0f);
    EXPECT_EQ(Through(zeros, dtype), zeros) << type.name;
    for (float c : {0.37f, -0.37f, 1000.0f}) {
      for (float y : Through(std::vector<float>(kCols, c), dtype)) {
        ASSERT_NEAR(y, c, 0.003 * std::fabs(c)) << type.name;
      }
    }
    std::vector<float> outlier(kCols, 0.0f);
    outlier[77] = -8.0f;
    const std::vector<float> y = Through(outlier, dtype);
    for (size_t i = 0; i < kCols; ++i) {
      // Beside the outlier f16 scale and minimum may leave their rounding.
      ASSERT_NEAR(y[i], outlier[i], i / 32 == 77 / 32 ? 8.0 / 1024 : 0) << type.name << " " << i;
    }
  }
}

TEST(QuantizeTest, MagnitudesFromTinyToLargestStayFiniteAndClose) {
  std::mt19937_64 rng(7);
  const std::vector<float> unit = RandomFloats(4 * kCols, rng);
  for (const Bound& bound : kBounds) {
    for (float scale : {1e-40f, 1e-30f, 1e-6f, 1e-4f, 1e4f}) {
      std::vector<float> x = unit;
      for (float& v : x) v *= scale;
      const std::vector<float> y = Through(x, bound.dtype);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_TRUE(std::isfinite(y[i]));
        // f16's smallest number times half of what codes and integer scales reach.
        ASSERT_NEAR(y[i], x[i], bound.largest * 4.5 * scale + 4e-6) << DTypeName(bound.dtype);
      }
    }
    // Where f16's range still holds the scales nothing is lost to it.
    std::vector<float> small = unit;
    for (float& v : small) v *= 2e-3f;
    EXPECT_LT(RelativeRms(small, Through(small, bound.dtype)), 1.3 * bound.gaussian)
        << DTypeName(bound.dtype);
  }
}

TEST(QuantizeTest, WhatIsNotFiniteOrTooLargeIsRefusedByName) {
  for (DType dtype : kQuantizeTypes) {
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      std::vector<float> x(20 * kCols, 0.5f);
      x[13 * kCols + 100] = bad;
      x[17 * kCols] = bad;
      const absl::Status status = QuantizedBytes(ViewOf(x), dtype).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(status.message()), HasSubstr("blk.0.test, row 13"));
    }
    std::vector<float> x(2 * kCols, 0.5f);
    x[kCols] = 3e38f;
    const absl::Status status = QuantizedBytes(ViewOf(x), dtype).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << DTypeName(dtype);
    EXPECT_THAT(std::string(status.message()), HasSubstr("row 1: a value is too large"));
  }
}

// Files that llama.cpp made of the same weights.
TEST(QuantizeTest, IsAsCloseAsLlamaCpp) {
  const auto path = [](const char* type) {
    return std::string(kModels) + "quill-7m-" + type + ".gguf";
  };
  if (!std::filesystem::exists(path("f16"))) GTEST_SKIP() << path("f16") << " is not here";
  const auto source = Model::Open(path("f16"));
  ASSERT_TRUE(source.ok()) << source.status();
  for (const char* type : {"q8_0", "q6_k", "q5_k_m", "q4_k_m"}) {
    const auto theirs = Model::Open(path(type));
    ASSERT_TRUE(theirs.ok()) << theirs.status();
    const ModelSpec& spec = (*theirs)->spec();
    int compared = 0;
    for (int t = 0; t < static_cast<int>(spec.tensors.size()); ++t) {
      const TensorSpec& made = spec.tensors[static_cast<size_t>(t)];
      const int from = (*source)->spec().FindTensor(made.role, made.layer);
      if (made.shape.size() != 2 || !Info(made.dtype).quantized) continue;
      const int64_t rows = made.rows(), cols = made.cols();
      const std::byte* f16 = (*source)->TensorBytes(from).data();
      const auto ours = QuantizedBytes({f16, DType::kF16, rows, cols}, made.dtype);
      ASSERT_TRUE(ours.ok()) << ours.status();
      const std::vector<float> x = Read(DType::kF16, f16, rows, cols);
      const double mine = RelativeRms(x, Read(made.dtype, ours->data(), rows, cols));
      const double his =
          RelativeRms(x, Read(made.dtype, (*theirs)->TensorBytes(t).data(), rows, cols));
      EXPECT_LT(mine, 1.001 * his) << made.name << " " << DTypeName(made.dtype);
      if (made.layer <= 0) {
        std::printf("%-24s %-5s ours %.5f llama.cpp %.5f\n", made.name.c_str(),
                    std::string(DTypeName(made.dtype)).c_str(), mine, his);
      }
      ++compared;
    }
    EXPECT_GT(compared, 50) << type;
  }
}

}  // namespace
}  // namespace millrace
