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

// The factor by which results are too large on the whole.
double FactorOf(const std::vector<float>& y, const std::vector<float>& expected) {
  double product = 0, norm = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    product += double{y[i]} * expected[i];
    norm += double{expected[i]} * expected[i];
  }
  return product / norm;
}

void CheckTiled(const MatmulCase& c, std::mt19937_64& rng) {
  MatmulData data(c, rng);
  const std::vector<float> y = RunMatmul(data, CpuIsa::kAvx512, 2, RunTiled);
  const double norm = ProductNorm(data);
  // 0.23% on average; of a few results one may be three times that.
  EXPECT_LT(Distance(y, ExpectedOf(data)) / norm, c.rows * c.n < 64 ? 0.01 : 0.004) << c.Name();
  if (c.rows * c.n < 1000 || c.bias || c.accumulate) return;
  // Values of W are cut off to bf16, and made larger by what that takes away on average.
  EXPECT_NEAR(FactorOf(y, ExpectedOf(data)), 1, 6e-4) << c.Name();
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

TEST_P(MatmulTilesTest, ShapeOfTheWorkChangesNothing) {
  std::mt19937_64 rng(45);
  const int64_t cols = Info(GetParam()).block_elements == 256 ? 1280 : 1312;
  MatmulData data({GetParam(), 301, cols, 70}, rng);
  const std::vector<float> expected = RunMatmul(data, CpuIsa::kAvx512, 2, RunTiled);
  for (const TileShape shape : {TileShape{32, 512}, TileShape{64, 256}, TileShape{128, 512}}) {
    const auto run = [&](const CpuContext& ctx, FloatView x,
                         absl::Span<const MatmulTarget> targets) {
      MatmulSlab(EmulatedTileKernels(), *ctx.pool, x, 0, targets, shape, ctx.scratch);
    };
    EXPECT_EQ(RunMatmul(data, CpuIsa::kAvx512, 2, run), expected) << shape.rows << shape.chunk;
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
