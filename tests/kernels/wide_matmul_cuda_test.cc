// The wide products on a CUDA device: some rows of x against the scalar reference, all against the
// decode kernels.
#include "kernels/wide_matmul_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "kernels/matmul.h"
#include "kernels/matmul_cuda.h"
#include "kernels/narrow_choice.h"
#include "kernels/norm_cuda.h"
#include "kernels/weight_tiles_cuda.h"
#include "kernels/wide_matmul_params.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/matmul_bound.h"

namespace millrace {
namespace {

class WideMatmulTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    if (!cuda::HasWideMatmul(device_)) GTEST_SKIP() << "no warpgroup products on this GPU";
  }

  struct Weights {
    std::vector<uint8_t> raw;
    DeviceArray<uint8_t> data;
    WeightTiles tiles;
    DType source;
  };

  Weights MakeWeights(DType source, int64_t rows, int64_t cols) {
    auto raw = RandomWeights(source, rows, cols, rng_);
    auto data = Poisoned<uint8_t>(static_cast<size_t>(TiledBytes(source, rows, cols).count()));
    WeightTiles tiles;
    tiles.data = data.as();
    tiles.dtype = TiledType(source);
    tiles.rows = rows;
    tiles.cols = cols;
    tiles.multiplier = source == DType::kBF16 || source == DType::kF32 ? 0x1p-10f : 1.0f;
    const auto device_raw = Upload(raw);
    EXPECT_TRUE(cuda::TileRows(source, device_raw.as(), 0, rows, tiles, data.as(), stream()).ok());
    Wait();
    return {std::move(raw), std::move(data), tiles, source};
  }

  struct Input {
    std::vector<float> x;  // what the halves hold
    DeviceArray<uint16_t> halves, packed_halves;
    cuda::PackedRows packed;
    int64_t n, cols, ldx;
  };

  Input MakeInput(int64_t n, int64_t cols) {
    const int64_t ldx = (cols + 15) / 8 * 8;
    std::vector<uint16_t> halves;
    std::vector<float> x;
    for (float f : RandomFloats(static_cast<size_t>(n * ldx), rng_)) {
      halves.push_back(FloatToHalf(f));
      x.push_back(HalfToFloat(halves.back()));
    }
    auto packed = PoisonedRows(n, cols);
    Input in{std::move(x), Upload(halves), std::move(packed), {}, n, cols, ldx};
    in.packed = {in.packed_halves.as<__half>(), n, cols};
    EXPECT_TRUE(cuda::PackRows(in.halves.as<__half>(), ldx, in.packed, stream()).ok());
    return in;
  }

  DeviceArray<uint16_t> PoisonedRows(int64_t n, int64_t cols) const {
    return Upload(
        std::vector<uint16_t>(static_cast<size_t>(cuda::PackedBytes(n, cols).count() / 2), 0x7e00));
  }

  // Rows of x that the scalar reference is asked about.
  std::vector<int64_t> Sample(int64_t n) {
    std::vector<int64_t> rows = {0, n - 1};
    for (int i = 0; i < 6; ++i) rows.push_back(Random(0, n - 1));
    return rows;
  }

  // got: [n, ldy], results of `w` from `column` on; before: what y held.
  void CheckProduct(const Weights& w, const Input& in, const std::vector<float>& got,
                    const std::vector<float>& before, int64_t ldy, int64_t column,
                    const std::vector<float>& bias, bool accumulate, const std::string& what) {
    const std::vector<double> bounds = ProductBounds(w.source, w.raw, w.tiles.rows, w.tiles.cols);
    for (int64_t i : Sample(in.n)) {
      std::vector<float> expected(static_cast<size_t>(w.tiles.rows));
      std::vector<float> x = in.x;
      MatmulTarget target;
      target.w = {w.raw.data(), w.source, w.tiles.rows, w.tiles.cols};
      target.y = FloatView(expected.data(), 1, w.tiles.rows, w.tiles.rows);
      MatmulReference(FloatView(x.data() + i * in.ldx, 1, in.cols, in.ldx), target);
      for (size_t r = 0; r < expected.size(); ++r) {
        const size_t at = static_cast<size_t>(i * ldy + column) + r;
        const double added = (accumulate ? before[at] : 0.0) + (bias.empty() ? 0.0f : bias[r]);
        ASSERT_NEAR(got[at], expected[r] + added,
                    bounds[r] + 0x1p-21 * (std::fabs(expected[r]) + std::fabs(added)))
            << what << " row of x " << i << " weight row " << r;
      }
    }
    CheckAll(w, in, got, before, ldy, column, bias, accumulate, what);
  }

  // Every result against SmallMatmul, which rounds the same weights: only sums differ.
  void CheckAll(const Weights& w, const Input& in, const std::vector<float>& got,
                const std::vector<float>& before, int64_t ldy, int64_t column,
                const std::vector<float>& bias, bool accumulate, const std::string& what) {
    const auto y = Poisoned<float>(static_cast<size_t>(in.n * w.tiles.rows));
    for (int64_t i = 0; i < in.n; i += cuda::kSmallMatmulRows) {
      cuda::MatmulInput small;
      small.x = in.halves.as<__half>() + i * in.ldx;
      small.ldx = in.ldx;
      small.n = static_cast<int>(std::min<int64_t>(cuda::kSmallMatmulRows, in.n - i));
      ASSERT_TRUE(cuda::SmallMatmul(w.tiles, small, nullptr, false, y.as() + i * w.tiles.rows,
                                    w.tiles.rows, stream())
                      .ok());
    }
    const std::vector<float> want = Download(y);
    double norm = 0;
    for (float v : want) norm += static_cast<double>(v) * v;
    norm = std::sqrt(norm / static_cast<double>(want.size()));
    for (int64_t i = 0; i < in.n; ++i) {
      for (int64_t r = 0; r < w.tiles.rows; ++r) {
        const size_t at = static_cast<size_t>(i * ldy + column + r);
        const float added =
            (accumulate ? before[at] : 0.0f) + (bias.empty() ? 0.0f : bias[static_cast<size_t>(r)]);
        const float product = want[static_cast<size_t>(i * w.tiles.rows + r)];
        ASSERT_NEAR(got[at], product + added,
                    1e-4 * norm + 1e-5 * (std::fabs(product) + std::fabs(added)))
            << what << " row of x " << i << " weight row " << r << " (all)";
      }
    }
  }

  // row_parts: of NarrowMatmul; null: WideMatmul.
  absl::Status Product(const cuda::WideMatrix& w, const Input& in, bool accumulate, float* y,
                       int64_t ldy, std::optional<int> row_parts) {
    return row_parts
               ? cuda::NarrowMatmul({w}, in.packed, accumulate, y, ldy, stream(), *row_parts)
               : cuda::WideMatmul({w}, in.packed, accumulate, y, ldy, stream());
  }

  void CheckPackedSwiGlu(const Weights& gate, const Weights& up, const Input& in,
                         const DeviceArray<uint16_t>& plain, int64_t ldo);

  void CheckSize(DType source, int64_t rows, int64_t cols, int64_t n,
                 std::optional<int> row_parts = std::nullopt) {
    const std::string what = absl::StrCat(DTypeName(source), " ", rows, "x", cols, " n ", n,
                                          " row parts ", row_parts.value_or(0));
    const Weights w = MakeWeights(source, rows, cols);
    const Input in = MakeInput(n, cols);
    const int64_t ldy = rows + 3;
    const auto before = RandomFloats(static_cast<size_t>(n * ldy), rng_);
    const auto bias = RandomFloats(static_cast<size_t>(rows), rng_);
    const auto device_bias = Upload(bias);
    for (bool accumulate : {false, true}) {
      const auto y = Upload(before);
      const bool biased = !accumulate;
      ASSERT_TRUE(Product({w.tiles, biased ? device_bias.as() : nullptr}, in, accumulate, y.as(),
                          ldy, row_parts)
                      .ok());
      const std::vector<float> got = Download(y);
      CheckProduct(w, in, got, before, ldy, 0, biased ? bias : std::vector<float>(), accumulate,
                   what);
      for (size_t i = 0; i < got.size(); ++i) {
        if (static_cast<int64_t>(i) % ldy < rows) continue;
        ASSERT_EQ(got[i], before[i]) << what << " past a row";
      }
    }
  }
};

// Packed results of gate and up against the ones that were stored as plain rows.
void WideMatmulTest::CheckPackedSwiGlu(const Weights& gate, const Weights& up, const Input& in,
                                       const DeviceArray<uint16_t>& plain, int64_t ldo) {
  const int64_t rows = gate.tiles.rows;
  const auto want = PoisonedRows(in.n, rows), got = PoisonedRows(in.n, rows);
  ASSERT_TRUE(
      cuda::PackRows(plain.as<__half>(), ldo, {want.as<__half>(), in.n, rows}, stream()).ok());
  ASSERT_TRUE(cuda::NarrowMatmulSwiGlu(gate.tiles, up.tiles, in.packed,
                                       {got.as<__half>(), in.n, rows}, stream())
                  .ok());
  const std::vector<uint16_t> expected = Download(want), halves = Download(got);
  for (size_t i = 0; i < expected.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / 512 % cuda::PackedAtoms(in.n) * 8 +
                        static_cast<int64_t>(i) % 512 / 64;
    if (row < in.n) {
      ASSERT_EQ(halves[i], expected[i]) << rows << " rows, n " << in.n << ", place " << i;
    }
  }
}

class WideMatmulTypeTest : public WideMatmulTest, public ::testing::WithParamInterface<DType> {};

TEST_P(WideMatmulTypeTest, ProductsMatchTheReference) {
  const bool k_type = Info(GetParam()).block_elements == 256;
  const int64_t sizes[][3] = {{1, k_type ? 256 : 32, 65},
                              {100, k_type ? 512 : 96, 128},
                              {272, k_type ? 2304 : 1056, 300},
                              {700, k_type ? 768 : 672, 515},
                              {130, k_type ? 1024 : 960, 1025}};
  for (const auto& [rows, cols, n] : sizes) {
    ASSERT_NO_FATAL_FAILURE(CheckSize(GetParam(), rows, cols, n));
  }
}

TEST_P(WideMatmulTypeTest, SwiGluOfTwoProducts) {
  const int64_t sizes[][3] = {{96, 768, 65}, {352, 256, 300}, {64, 512, 1000}};
  for (const auto& [rows, cols, n] : sizes) {
    const Weights gate = MakeWeights(GetParam(), rows, cols),
                  up = MakeWeights(GetParam(), rows, cols);
    const Input in = MakeInput(n, cols);
    const auto g = Poisoned<float>(static_cast<size_t>(n * rows)), u = Poisoned<float>(g.count);
    ASSERT_TRUE(cuda::WideMatmul({{gate.tiles}}, in.packed, false, g.as(), rows, stream()).ok());
    ASSERT_TRUE(cuda::WideMatmul({{up.tiles}}, in.packed, false, u.as(), rows, stream()).ok());
    const auto act = PoisonedRows(n, rows);
    const cuda::PackedRows out = {act.as<__half>(), n, rows};
    ASSERT_TRUE(cuda::WideMatmulSwiGlu(gate.tiles, up.tiles, in.packed, out, stream()).ok());
    // The same from the products, packed by the kernel for that.
    const std::vector<float> gates = Download(g), ups = Download(u);
    std::vector<uint16_t> halves;
    for (size_t i = 0; i < gates.size(); ++i) {
      const double v = gates[i] / (1.0 + std::exp(-static_cast<double>(gates[i]))) * ups[i];
      halves.push_back(FloatToHalf(static_cast<float>(std::clamp(v, -65504.0, 65504.0))));
    }
    const auto plain = Upload(halves);
    const auto packed = PoisonedRows(n, rows);
    ASSERT_TRUE(
        cuda::PackRows(plain.as<__half>(), rows, {packed.as<__half>(), n, rows}, stream()).ok());
    const std::vector<uint16_t> want = Download(packed), got = Download(act);
    for (size_t i = 0; i < want.size(); ++i) {
      const int64_t octets = (n + 7) / 8, row = static_cast<int64_t>(i) / 512 % octets * 8 +
                                                static_cast<int64_t>(i) % 512 / 64;
      if (row >= n) continue;
      const float expected = HalfToFloat(want[i]);
      ASSERT_NEAR(HalfToFloat(got[i]), expected, 0x1p-9 * std::fabs(expected) + 1e-3)
          << DTypeName(GetParam()) << " " << rows << "x" << cols << " n " << n << " place " << i;
    }
  }
}

// Up to 64 rows of x: one, two, odd and even numbers of weight tiles, rows that fill no tile.
TEST_P(WideMatmulTypeTest, NarrowProductsMatchTheReference) {
  const bool k_type = Info(GetParam()).block_elements == 256;
  const int64_t sizes[][3] = {{1, k_type ? 256 : 32, 17},      {100, k_type ? 512 : 96, 24},
                              {272, k_type ? 2304 : 1056, 31}, {700, k_type ? 768 : 672, 32},
                              {130, k_type ? 1280 : 992, 33},  {1000, k_type ? 1792 : 480, 48},
                              {272, k_type ? 4352 : 4128, 63}, {8, k_type ? 512 : 64, 64},
                              {400, k_type ? 2816 : 2080, 64}, {2500, 256, 32},
                              {129, k_type ? 8192 : 8224, 17}, {15, 768, 1},
                              {200, k_type ? 1536 : 1056, 9}};
  for (const auto& [rows, cols, n] : sizes) {
    for (int parts : {0, 1, 2, 4}) {
      if (parts == 1 && n > 32) continue;
      ASSERT_NO_FATAL_FAILURE(CheckSize(GetParam(), rows, cols, n, parts));
    }
  }
}

// More rows than all blocks take at once, of every number of x's rows.
TEST_P(WideMatmulTypeTest, NarrowProductsOfManyRounds) {
  const bool k_type = Info(GetParam()).block_elements == 256;
  for (int64_t cols : {k_type ? 256 : 64, k_type ? 768 : 160, k_type ? 1024 : 512}) {
    const int64_t rows = 36'000 + Random(0, 300);
    const Weights w = MakeWeights(GetParam(), rows, cols);
    for (int64_t n : {17, 24, 31, 32, 33, 48, 63, 64}) {
      const Input in = MakeInput(n, cols);
      for (int parts : {1, 2, 4}) {
        if (parts == 1 && n > 32) continue;
        const auto y = Poisoned<float>(static_cast<size_t>(n * rows));
        ASSERT_TRUE(Product({w.tiles}, in, false, y.as(), rows, parts).ok());
        ASSERT_NO_FATAL_FAILURE(CheckAll(w, in, Download(y), {}, rows, 0, {}, false,
                                         absl::StrCat(DTypeName(GetParam()), " ", rows, "x", cols,
                                                      " n ", n, " row parts ", parts)));
      }
    }
  }
}

double Rms(const std::vector<float>& values) {
  double sum = 0;
  for (float v : values) sum += static_cast<double>(v) * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// Gate and up summed in another order differ by some 1e-6 of their norm. Where they are large and
// a gate is near zero, that is much of silu(gate) * up.
void CheckSwiGlu(const std::vector<float>& gates, const std::vector<float>& ups, int64_t rows,
                 const std::vector<uint16_t>& got, int64_t ldo, const std::string& what) {
  const double gate_error = 1e-5 * Rms(gates), up_error = 1e-5 * Rms(ups);
  double most = 0;  // error, of what is allowed
  std::string worst;
  for (size_t i = 0; i < gates.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / rows, column = static_cast<int64_t>(i) % rows;
    const double gate = gates[i], silu = gate / (1.0 + std::exp(-gate));
    const double expected = std::clamp(silu * ups[i], -65504.0, 65504.0);
    const double allowed = 0x1p-9 * std::fabs(expected) + 1.1 * std::fabs(ups[i]) * gate_error +
                           std::fabs(silu) * up_error + 0x1p-24;
    const double value = HalfToFloat(got[static_cast<size_t>(row * ldo + column)]);
    const double error = std::fabs(value - expected);
    if (error <= most * allowed) continue;
    most = std::isnan(error) ? HUGE_VAL : error / allowed;
    worst = absl::StrCat("row of x ", row, " weight row ", column, " gate ", gates[i], " up ",
                         ups[i], " expected ", expected, " got ", value, " allowed ", allowed);
    if (std::isnan(error)) break;
  }
  EXPECT_LE(most, 1.0) << what << ", worst: " << worst;
}

TEST_P(WideMatmulTypeTest, NarrowSwiGluOfTwoProducts) {
  const bool k_type = Info(GetParam()).block_elements == 256;
  const int64_t sizes[][3] = {
      {96, 768, 9},   {20032, k_type ? 768 : 160, 17}, {640, 1536, 32}, {64, 512, 64},
      {352, 256, 48}, {9000, k_type ? 1280 : 352, 31}, {200, 512, 24},  {9000, 512, 33},
      {13, 256, 63}};
  for (const auto& [rows, cols, n] : sizes) {
    const Weights gate = MakeWeights(GetParam(), rows, cols),
                  up = MakeWeights(GetParam(), rows, cols);
    const Input in = MakeInput(n, cols);
    const auto g = Poisoned<float>(static_cast<size_t>(n * rows)), u = Poisoned<float>(g.count);
    ASSERT_TRUE(Product({gate.tiles}, in, false, g.as(), rows, 0).ok());
    ASSERT_TRUE(Product({up.tiles}, in, false, u.as(), rows, 0).ok());
    const std::vector<float> gates = Download(g), ups = Download(u);
    const int64_t ldo = rows + 8;
    constexpr uint16_t kPoison = 0x7e00;
    const auto out = Upload(std::vector<uint16_t>(static_cast<size_t>(n * ldo), kPoison));
    ASSERT_TRUE(cuda::NarrowMatmulSwiGlu(gate.tiles, up.tiles, in.packed, out.as<__half>(), ldo,
                                         stream())
                    .ok());
    const std::vector<uint16_t> got = Download(out);
    CheckSwiGlu(gates, ups, rows, got, ldo,
                absl::StrCat(DTypeName(GetParam()), " ", rows, "x", cols, " n ", n));
    for (size_t i = 0; i < got.size(); ++i) {
      if (static_cast<int64_t>(i) % ldo < rows) continue;
      ASSERT_EQ(got[i], kPoison) << "past a row";
    }
    if (rows % 32 == 0) {
      ASSERT_NO_FATAL_FAILURE(CheckPackedSwiGlu(gate, up, in, out, ldo));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, WideMatmulTypeTest, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& type) { return std::string(DTypeName(type.param)); });

// Query, key and value of different types, and enough tiles that blocks multiply several.
TEST_F(WideMatmulTest, MatricesThatShareTheirInput) {
  constexpr int64_t kCols = 512;
  const DType types[] = {DType::kQ4_K, DType::kQ6_K, DType::kQ8_0, DType::kQ5_K};
  const int64_t rows[] = {2048, 200, 72, 640};
  std::vector<Weights> weights;
  std::vector<cuda::WideMatrix> matrices;
  int64_t ldy = 0;
  for (int i = 0; i < 4; ++i) {
    weights.push_back(MakeWeights(types[i], rows[i], kCols));
    matrices.push_back({weights.back().tiles});
    ldy += rows[i];
  }
  for (int64_t n : {1100, 17, 32, 64}) {
    const Input in = MakeInput(n, kCols);
    const auto y = Poisoned<float>(static_cast<size_t>(n * ldy));
    ASSERT_TRUE(cuda::WideMatmul(matrices, in.packed, false, y.as(), ldy, stream()).ok());
    const std::vector<float> got = Download(y);
    int64_t column = 0;
    for (const Weights& w : weights) {
      ASSERT_NO_FATAL_FAILURE(CheckProduct(w, in, got, {}, ldy, column, {}, false,
                                           absl::StrCat(DTypeName(w.source), " n ", n)));
      column += w.tiles.rows;
    }
  }
}

// Every width of a tile, over rows that none divides.
TEST_F(WideMatmulTest, EveryWidth) {
  constexpr int64_t kRows = 5000, kCols = 1280, kN = 700;
  const Weights w = MakeWeights(DType::kQ6_K, kRows, kCols);
  const Input in = MakeInput(kN, kCols);
  for (int tokens : cuda::kWideTokens) {
    const auto y = Poisoned<float>(static_cast<size_t>(kN * kRows));
    ASSERT_TRUE(
        cuda::WideMatmul({{w.tiles}}, in.packed, false, y.as(), kRows, stream(), tokens).ok());
    ASSERT_NO_FATAL_FAILURE(
        CheckProduct(w, in, Download(y), {}, kRows, 0, {}, false, absl::StrCat("width ", tokens)));
  }
}

TEST_F(WideMatmulTest, NormsLeaveRowsPacked) {
  for (int64_t d : {64, 1024, 8192}) {
    constexpr int64_t kN = 77;
    ASSERT_TRUE(cuda::RmsNormPacks(d));
    const auto x = Upload(RandomFloats(static_cast<size_t>(kN * d), rng_));
    const auto weight = Upload(RandomFloats(static_cast<size_t>(d), rng_));
    const auto plain = Poisoned<uint16_t>(static_cast<size_t>(kN * d));
    const auto want = PoisonedRows(kN, d), got = PoisonedRows(kN, d);
    ASSERT_TRUE(cuda::RmsNormHalf(x.as(), d, nullptr, kN, d, weight.as(), 1e-5f, plain.as<__half>(),
                                  stream())
                    .ok());
    ASSERT_TRUE(cuda::PackRows(plain.as<__half>(), d, {want.as<__half>(), kN, d}, stream()).ok());
    ASSERT_TRUE(
        cuda::RmsNormPacked(x.as(), d, weight.as(), 1e-5f, {got.as<__half>(), kN, d}, stream())
            .ok());
    const std::vector<uint16_t> expected = Download(want), halves = Download(got);
    for (size_t i = 0; i < expected.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / 512 % cuda::PackedAtoms(kN) * 8 +
                          static_cast<int64_t>(i) % 512 / 64;
      if (row < kN) {
        ASSERT_EQ(halves[i], expected[i]) << d << " columns, place " << i;
      }
    }
  }
}

TEST_F(WideMatmulTest, RepeatsItsBits) {
  const Weights w = MakeWeights(DType::kQ4_K, 3000, 1280);
  for (int64_t n : {700, 32, 64}) {
    const Input in = MakeInput(n, 1280);
    std::vector<float> first;
    for (int i = 0; i < 20; ++i) {
      const auto y = Poisoned<float>(static_cast<size_t>(n) * 3000);
      // Several under way, each beginning before the one before has ended.
      for (int j = 0; j < 4; ++j) {
        ASSERT_TRUE(cuda::WideMatmul({{w.tiles}}, in.packed, false, y.as(), 3000, stream()).ok());
      }
      const std::vector<float> got = Download(y);
      if (i == 0) first = got;
      ASSERT_TRUE(std::memcmp(got.data(), first.data(), got.size() * sizeof(float)) == 0);
    }
  }
}

TEST(WideTokensTest, FewestRounds) {
  // 66 clusters: 70B's output and down matrices, its query, key and value, its gate and up.
  EXPECT_EQ(cuda::BestWideTokens(32, 512, 66), 256);
  EXPECT_EQ(cuda::BestWideTokens(40, 512, 66), 176);
  EXPECT_EQ(cuda::BestWideTokens(224, 512, 66), 256);
  EXPECT_EQ(cuda::BestWideTokens(16, 512, 66), 128);
}

// Rounds of 66 clusters, of what a cluster reads in each.
TEST(NarrowChoiceTest, CountsRoundsAndRowsOfX) {
  auto cost = [](int rows, int n, int parts) {
    const int of_cluster = (cuda::NarrowHalves(parts) ? 64 : 128) * parts;
    return cuda::NarrowCost((rows + of_cluster - 1) / of_cluster, n, parts,
                            cuda::NarrowHalves(parts), 66);
  };
  // 70B's output and down matrices: each block half the columns of 128 rows.
  EXPECT_LT(cost(8192, 32, 2), cost(8192, 32, 1));
  EXPECT_LT(cost(8192, 32, 2), cost(8192, 32, 4));
  // Query, key and value.
  EXPECT_LT(cost(10240, 32, 1), cost(10240, 32, 2));
  EXPECT_LT(cost(10240, 64, 2), cost(10240, 64, 4));
  // The vocabulary.
  EXPECT_LT(cost(128256, 32, 4), cost(128256, 32, 2));
}

}  // namespace
}  // namespace millrace
