// The AMX kernels on emulated tiles, on any processor with AVX512-BF16: unpacking, layout, sums,
// edges.
#include "kernels/matmul_driver.h"
#include "tests/kernels/emulated_tile_kernels.h"
#include "tests/kernels/matmul_cases.h"

namespace millrace {
namespace {

void RunTiled(const CpuContext& ctx, FloatView x, absl::Span<const MatmulTarget> targets) {
  MatmulTiled(EmulatedTileKernels(), *ctx.pool, x, targets, ctx.scratch);
}

std::vector<float> Rounded(std::vector<float> v) {
  for (float& f : v) f = Bf16ToFloat(FloatToBf16(f));
  return v;
}

// The product of W and x after both were rounded to bf16, in double.
std::vector<float> ProductOfRounded(MatmulData& data) {
  const MatmulCase& c = data.c;
  const std::vector<float> x = Rounded(data.x);
  std::vector<float> w(static_cast<size_t>(c.cols)), y = data.start;
  for (int64_t r = 0; r < c.rows; ++r) {
    DequantizeRow(c.dtype, data.weights.data() + r * RowBytes(c.dtype, c.cols).count(), c.cols,
                  w.data());
    w = Rounded(w);
    for (int64_t t = 0; t < c.n; ++t) {
      double sum =
          (c.bias ? data.bias[r] : 0.0) + (c.accumulate ? data.start[t * c.rows + r] : 0.0);
      for (int64_t i = 0; i < c.cols; ++i) sum += static_cast<double>(w[i]) * x[t * c.cols + i];
      y[t * c.rows + r] = static_cast<float>(sum);
    }
  }
  return y;
}

void CheckTiled(const MatmulCase& c, std::mt19937_64& rng) {
  MatmulData data(c, rng);
  const std::vector<float> y = RunMatmul(data, CpuIsa::kAvx512, 2, RunTiled);
  const double norm = ProductNorm(data);
  // 0.23% on average; of a few results one may be three times that.
  EXPECT_LT(Distance(y, ExpectedOf(data)) / norm, c.rows * c.n < 64 ? 0.01 : 0.004) << c.Name();
  // An f16 scale times a code of few bits is a tie for 2% of the weights, rounded up or to even.
  EXPECT_LT(Distance(y, ProductOfRounded(data)) / norm, 1e-3) << c.Name();
}

class MatmulTilesTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (DetectCpuIsa() < CpuIsa::kAvx512 || !HasAvx512Bf16()) GTEST_SKIP() << "no AVX512-BF16";
  }
};

TEST_P(MatmulTilesTest, AgreesWithReferenceOverShapes) {
  std::mt19937_64 rng(41 + static_cast<int>(GetParam()));
  for (int64_t rows : {1, 16, 17, 33, 70, 161}) {
    for (int64_t n : {1, 5, 16, 17, 32, 33, 50}) CheckTiled({GetParam(), rows, 512, n}, rng);
  }
  for (int64_t cols : {256, 768, 1280}) CheckTiled({GetParam(), 40, cols, 40}, rng);
  if (Info(GetParam()).block_elements == 256) return;
  for (int64_t cols : {32, 96, 288, 544, 1056}) {
    CheckTiled({GetParam(), 35, cols, 7}, rng);
    CheckTiled({GetParam(), 35, cols, 49}, rng);
  }
}

TEST_P(MatmulTilesTest, BiasAccumulateAndUnalignedWeights) {
  std::mt19937_64 rng(42);
  CheckTiled({GetParam(), 35, 256, 9, true, false, true}, rng);
  CheckTiled({GetParam(), 35, 256, 50, true, true, true}, rng);
}

// A thousand rows over two threads make panels of 128; more than 256 rows of x make several slabs.
TEST_P(MatmulTilesTest, RowsOfABatchAreWhatTheyAreAlone) {
  std::mt19937_64 rng(43);
  const int64_t rows = 1029, cols = 1024, n = 261;
  MatmulData data({GetParam(), rows, cols, n}, rng);
  const std::vector<float> all = RunMatmul(data, CpuIsa::kAvx512, 2, RunTiled);
  for (int64_t t : {0, 20, 255, 256, 260}) {
    MatmulData one = data;
    one.c.n = 1;
    one.x.assign(data.x.begin() + t * cols, data.x.begin() + (t + 1) * cols);
    const std::vector<float> y = RunMatmul(one, CpuIsa::kAvx512, 1, RunTiled);
    EXPECT_TRUE(std::equal(y.begin(), y.end(), all.begin() + t * rows)) << "row " << t;
  }
}

std::vector<DType> QuantizedTypes() {
  std::vector<DType> types;
  for (DType dtype : kAllDTypes) {
    if (Info(dtype).quantized) types.push_back(dtype);
  }
  return types;
}

INSTANTIATE_TEST_SUITE_P(QuantizedTypes, MatmulTilesTest, ::testing::ValuesIn(QuantizedTypes()),
                         [](const auto& i) { return std::string(DTypeName(i.param)); });

TEST(MatmulTilesDriverTest, QuantizedAndFloatTargetsShareOneInput) {
  if (DetectCpuIsa() < CpuIsa::kAvx512 || !HasAvx512Bf16()) GTEST_SKIP() << "no AVX512-BF16";
  std::mt19937_64 rng(44);
  MatmulData a({DType::kQ6_K, 48, 512, 12}, rng), b({DType::kF16, 20, 512, 12}, rng);
  b.x = a.x;
  std::vector<float> ya(12 * 48), yb(12 * 20);
  const MatmulTarget targets[] = {b.TargetOf(yb.data(), 20), a.TargetOf(ya.data(), 48)};
  TestContext context(CpuIsa::kAvx512, 2, MatmulScratchBytes(12, 512, 2));
  const MatmulTables tables{Avx512MatmulKernels(), &EmulatedTileKernels()};
  MatmulWith(tables, context.get(), a.X(), targets);
  EXPECT_LT(RelativeError(ya, ExpectedOf(a)), 0.01);
  EXPECT_LT(RelativeError(yb, ExpectedOf(b)), 2e-6);
}

}  // namespace
}  // namespace millrace
