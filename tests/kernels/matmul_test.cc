#include "kernels/matmul.h"

#include <cstring>

#include "kernels/matmul_driver.h"
#include "tests/kernels/matmul_cases.h"

namespace millrace {
namespace {

using Case = MatmulCase;

// On AMX, five rows of x and more are multiplied in bf16, not in int8 as everywhere else.
bool InBf16(const Case& c, CpuIsa isa) {
  return isa == CpuIsa::kAmx && Info(c.dtype).quantized && c.n >= kTilesFromRows;
}

// One case on every instruction set.
void CheckCase(const Case& c, std::mt19937_64& rng) {
  MatmulData data(c, rng);
  const std::vector<float> expected = ExpectedOf(data);
  // Int8 activations cost about 0.4% on blocks of 32; plain floats only rounding.
  const double tolerance = Info(c.dtype).quantized ? 0.012 : 2e-6;
  const double norm = ProductNorm(data);
  std::vector<float> first;
  for (CpuIsa isa : AvailableIsas()) {
    const std::vector<float> y = RunMatmul(data, isa, 2, Matmul);
    EXPECT_LT(Distance(y, expected) / norm, tolerance) << c.Name() << " " << CpuIsaName(isa);
    if (first.empty()) first = y;
    if (InBf16(c, isa)) continue;
    EXPECT_LT(Distance(y, first) / norm, 1e-5)
        << c.Name() << " " << CpuIsaName(isa) << " against scalar";
  }
}

class MatmulTest : public ::testing::TestWithParam<DType> {};

TEST_P(MatmulTest, AgreesWithReferenceOverShapes) {
  std::mt19937_64 rng(20260001 + static_cast<int>(GetParam()));
  const bool k_type = Info(GetParam()).block_elements == 256;
  for (int64_t rows : {1, 3, 16, 17, 70}) {
    for (int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 33}) {
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

// Some columns of a matrix, read where they lie, are the same matrix without gaps.
TEST_P(MatmulTest, ColumnsInPlace) {
  std::mt19937_64 rng(4711);
  const DType dtype = GetParam();
  constexpr int64_t kRows = 37, kCols = 1280, kFirst = 256, kEnd = 1024;
  const auto bytes = [&](int64_t cols) {
    return static_cast<size_t>(RowBytes(dtype, cols).count());
  };
  for (int64_t n : {1, 4, 7, 12, 40}) {
    const MatmulData whole({dtype, kRows, kCols, n}, rng);
    MatmulData packed({dtype, kRows, kEnd - kFirst, n}, rng);
    for (size_t r = 0; r < kRows; ++r) {
      std::memcpy(packed.weights.data() + r * bytes(kEnd - kFirst),
                  whole.weights.data() + r * bytes(kCols) + bytes(kFirst), bytes(kEnd - kFirst));
    }
    const auto in_place = [&](const CpuContext& context, FloatView x,
                              absl::Span<const MatmulTarget> targets) {
      MatmulTarget target = targets[0];
      target.w.data = whole.weights.data() + bytes(kFirst);
      target.w.row_stride = RowBytes(dtype, kCols);
      Matmul(context, x, {&target, 1});
    };
    for (CpuIsa isa : AvailableIsas()) {
      EXPECT_EQ(RunMatmul(packed, isa, 2, in_place), RunMatmul(packed, isa, 2, Matmul))
          << packed.c.Name() << " " << CpuIsaName(isa);
    }
  }
}

TEST_P(MatmulTest, LargeBatch) {
  std::mt19937_64 rng(99);
  CheckCase({GetParam(), 40, 256, 515}, rng);
}

// The number of threads changes nothing, nor do other rows of x on the same path.
TEST_P(MatmulTest, DependsOnItsOwnRowsOnly) {
  std::mt19937_64 rng(31);
  const int64_t rows = 203, cols = 1280;
  for (CpuIsa isa : AvailableIsas()) {
    for (int64_t n : {1, 4, 8, 40}) {
      MatmulData data({GetParam(), rows, cols, n}, rng);
      const std::vector<float> all = RunMatmul(data, isa, 1, Matmul);
      for (int threads : {2, 3}) {
        EXPECT_EQ(RunMatmul(data, isa, threads, Matmul), all) << n << " " << CpuIsaName(isa);
      }
      MatmulData last = data;
      last.c.n = 1;
      last.x.erase(last.x.begin(), last.x.end() - cols);
      const std::vector<float> y = RunMatmul(last, isa, 2, Matmul);
      const std::vector<float> of_all(all.end() - rows, all.end());
      EXPECT_LT(Distance(y, of_all) / ProductNorm(last), InBf16(data.c, isa) ? 0.012 : 1e-5)
          << n << " " << CpuIsaName(isa);
    }
  }
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
