#include "kernels/matmul.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

struct Case {
  DType dtype;
  int64_t rows, cols, n;
  bool bias = false, accumulate = false, unaligned = false;
};

// Runs one case on one instruction set inside a poisoned, fenced output; returns y.
std::vector<float> RunCase(const Case& c, CpuIsa isa, const std::vector<uint8_t>& weights,
                           std::vector<float>& x, const std::vector<float>& bias,
                           const std::vector<float>& start) {
  constexpr float kCanary = 12345.0f;
  const int64_t stride = c.rows + 3;
  std::vector<uint8_t> shifted(weights.size() + 1);
  std::memcpy(shifted.data() + 1, weights.data(), weights.size());
  std::vector<float> y(static_cast<size_t>(c.n * stride), kCanary);
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t r = 0; r < c.rows; ++r) {
      y[t * stride + r] = c.accumulate ? start[t * c.rows + r]
                                       : std::numeric_limits<float>::quiet_NaN();
    }
  }
  MatmulTarget target;
  target.w = {c.unaligned ? shifted.data() + 1 : weights.data(), c.dtype, c.rows, c.cols};
  target.bias = c.bias ? bias.data() : nullptr;
  target.accumulate = c.accumulate;
  target.y = FloatView(y.data(), c.n, c.rows, stride);
  TestContext context(isa, 2, MatmulScratchBytes(c.n, c.cols, 2));
  Matmul(context.get(), FloatView(x.data(), c.n, c.cols), {&target, 1});
  std::vector<float> out;
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t r = 0; r < stride; ++r) {
      if (r < c.rows) {
        out.push_back(y[t * stride + r]);
      } else {
        EXPECT_EQ(y[t * stride + r], kCanary) << "wrote past row " << t;
      }
    }
  }
  return out;
}

// Root of the sum of squares of all products: the size of y were its terms independent. Errors are
// measured against it, so that a y which happens to cancel is no failure.
double ProductNorm(const Case& c, const std::vector<uint8_t>& weights,
                   const std::vector<float>& x) {
  const int64_t row_bytes = RowBytes(c.dtype, c.cols).count();
  std::vector<float> w(static_cast<size_t>(c.cols));
  std::vector<double> x_squared(static_cast<size_t>(c.cols));
  for (int64_t t = 0; t < c.n; ++t) {
    for (int64_t i = 0; i < c.cols; ++i) {
      x_squared[i] += static_cast<double>(x[t * c.cols + i]) * x[t * c.cols + i];
    }
  }
  double sum = 0;
  for (int64_t r = 0; r < c.rows; ++r) {
    DequantizeRow(c.dtype, weights.data() + r * row_bytes, c.cols, w.data());
    for (int64_t i = 0; i < c.cols; ++i) sum += static_cast<double>(w[i]) * w[i] * x_squared[i];
  }
  return std::sqrt(sum);
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) return 1e30;
    sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  }
  return std::sqrt(sum);
}

void CheckCase(const Case& c, std::mt19937_64& rng) {
  const std::vector<uint8_t> weights = RandomWeights(c.dtype, c.rows, c.cols, rng);
  std::vector<float> x = RandomFloats(static_cast<size_t>(c.n * c.cols), rng);
  const std::vector<float> bias = RandomFloats(static_cast<size_t>(c.rows), rng);
  const std::vector<float> start = RandomFloats(static_cast<size_t>(c.n * c.rows), rng);
  std::vector<float> expected = start;
  MatmulTarget target;
  target.w = {weights.data(), c.dtype, c.rows, c.cols};
  target.bias = c.bias ? bias.data() : nullptr;
  target.accumulate = c.accumulate;
  target.y = FloatView(expected.data(), c.n, c.rows);
  MatmulReference(FloatView(x.data(), c.n, c.cols), target);

  const std::string what =
      std::string(DTypeName(c.dtype)) + " rows " + std::to_string(c.rows) + " cols " +
      std::to_string(c.cols) + " n " + std::to_string(c.n);
  // Int8 activations cost about 0.4% on blocks of 32; plain floats only rounding.
  const double tolerance = Info(c.dtype).quantized ? 0.012 : 2e-6;
  const double norm = ProductNorm(c, weights, x);
  std::vector<float> first;
  for (CpuIsa isa : AvailableIsas()) {
    const std::vector<float> y = RunCase(c, isa, weights, x, bias, start);
    EXPECT_LT(Distance(y, expected) / norm, tolerance) << what << " " << CpuIsaName(isa);
    if (first.empty()) first = y;
    EXPECT_LT(Distance(y, first) / norm, 1e-5) << what << " " << CpuIsaName(isa) << " against scalar";
  }
}

class MatmulTest : public ::testing::TestWithParam<DType> {};

TEST_P(MatmulTest, AgreesWithReferenceOverShapes) {
  std::mt19937_64 rng(20260001 + static_cast<int>(GetParam()));
  const bool k_type = Info(GetParam()).block_elements == 256;
  for (int64_t rows : {1, 3, 16, 17, 70}) {
    for (int64_t n : {1, 2, 3, 5, 8, 9, 13, 16, 33}) {
      CheckCase({GetParam(), rows, 512, n}, rng);
    }
  }
  for (int64_t cols : {256, 768, 1280}) CheckCase({GetParam(), 33, cols, 4}, rng);
  if (!k_type) {
    for (int64_t cols : {32, 64, 96, 288, 544}) {
      CheckCase({GetParam(), 5, cols, 1}, rng);
      CheckCase({GetParam(), 18, cols, 17}, rng);
    }
  }
}

TEST_P(MatmulTest, BiasAccumulateAndUnalignedWeights) {
  std::mt19937_64 rng(777);
  for (int64_t n : {1, 4, 30}) {
    CheckCase({GetParam(), 35, 256, n, true, false, false}, rng);
    CheckCase({GetParam(), 35, 256, n, false, true, true}, rng);
    CheckCase({GetParam(), 35, 256, n, true, true, true}, rng);
  }
}

TEST_P(MatmulTest, LargeBatch) {
  std::mt19937_64 rng(99);
  CheckCase({GetParam(), 40, 256, 515}, rng);
}

INSTANTIATE_TEST_SUITE_P(AllTypes, MatmulTest, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& i) { return std::string(DTypeName(i.param)); });

TEST(MatmulFloatTest, OddColumns) {
  std::mt19937_64 rng(5);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t cols : {1, 7, 33, 1025, 2049}) {
      CheckCase({dtype, 19, cols, 1}, rng);
      CheckCase({dtype, 19, cols, 21}, rng);
    }
  }
}

TEST(MatmulTargetsTest, TargetsOfDifferentTypesShareOneInput) {
  std::mt19937_64 rng(6);
  const int64_t cols = 512, n = 3;
  std::vector<float> x = RandomFloats(n * cols, rng);
  const std::vector<uint8_t> a = RandomWeights(DType::kQ4_K, 48, cols, rng);
  const std::vector<uint8_t> b = RandomWeights(DType::kF16, 20, cols, rng);
  std::vector<float> ya(n * 48), yb(n * 20), ea(n * 48), eb(n * 20);
  MatmulTarget targets[2], expected[2];
  targets[0].w = expected[0].w = {a.data(), DType::kQ4_K, 48, cols};
  targets[1].w = expected[1].w = {b.data(), DType::kF16, 20, cols};
  targets[0].y = FloatView(ya.data(), n, 48);
  targets[1].y = FloatView(yb.data(), n, 20);
  expected[0].y = FloatView(ea.data(), n, 48);
  expected[1].y = FloatView(eb.data(), n, 20);
  TestContext context(DetectCpuIsa(), 3, MatmulScratchBytes(n, cols, 3));
  Matmul(context.get(), FloatView(x.data(), n, cols), targets);
  for (const MatmulTarget& t : expected) MatmulReference(FloatView(x.data(), n, cols), t);
  EXPECT_LT(RelativeError(ya, ea), 0.012);
  EXPECT_LT(RelativeError(yb, eb), 2e-6);
}

}  // namespace
}  // namespace millrace
