// Tiled weights and the decode kernels on a CUDA device, against the scalar reference.
#include <gtest/gtest.h>

#include <array>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"
#include "kernels/matmul.h"
#include "kernels/matmul_cuda.h"
#include "kernels/norm_cuda.h"
#include "kernels/weight_tiles_cuda.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/matmul_bound.h"

namespace millrace {
namespace {

using cuda::DeviceBuffer;
using cuda::MatmulInput;

constexpr absl::Duration kTimeout = absl::Seconds(20);

template <typename T>
Bytes SizeOf(const std::vector<T>& v) {
  return Bytes(static_cast<int64_t>(v.size() * sizeof(T)));
}

std::vector<uint16_t> ToHalf(const std::vector<float>& v) {
  std::vector<uint16_t> out;
  for (float f : v) out.push_back(FloatToHalf(f));
  return out;
}

MatmulInput InputOf(const __half* x, int64_t ldx, int n) {
  MatmulInput in;
  in.x = x;
  in.ldx = ldx;
  in.n = n;
  return in;
}

class MatmulCudaTypesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
    stream_ = std::make_unique<cuda::Stream>(*cuda::Stream::Create(0));
  }

  cuda::StreamView stream() const { return stream_->view(); }

  template <typename T>
  T* Upload(const std::vector<T>& v) {
    buffers_.push_back(*DeviceBuffer::Create(0, SizeOf(v)));
    EXPECT_TRUE(cuda::CopyAsync(buffers_.back().data(), v.data(), SizeOf(v), stream()).ok());
    EXPECT_TRUE(stream().Wait(kTimeout).ok());
    return static_cast<T*>(buffers_.back().data());
  }

  template <typename T>
  std::vector<T> Download(const T* p, size_t n) {
    std::vector<T> v(n);
    EXPECT_TRUE(cuda::CopyAsync(v.data(), p, SizeOf(v), stream()).ok());
    EXPECT_TRUE(stream().Wait(kTimeout).ok());
    return v;
  }

  WeightTiles Tile(DType source, const std::vector<uint8_t>& raw, int64_t rows, int64_t cols) {
    WeightTiles tiles;
    tiles.dtype = TiledType(source);
    tiles.rows = rows;
    tiles.cols = cols;
    tiles.multiplier = source == DType::kBF16 || source == DType::kF32 ? 0x1p-10f : 1.0f;
    std::vector<uint8_t> poison(static_cast<size_t>(TiledBytes(source, rows, cols).count()), 0xff);
    uint8_t* data = Upload(poison);
    tiles.data = data;
    const uint8_t* device_raw = Upload(raw);
    // In two parts, as a loader does.
    const int64_t first = rows > 32 ? 32 : rows;
    EXPECT_TRUE(cuda::TileRows(source, device_raw, 0, first, tiles, data, stream()).ok());
    if (first < rows) {
      const uint8_t* rest = device_raw + first * RowBytes(source, cols).count();
      EXPECT_TRUE(cuda::TileRows(source, rest, first, rows - first, tiles, data, stream()).ok());
    }
    EXPECT_TRUE(stream().Wait(kTimeout).ok());
    return tiles;
  }

  // Attention's output, gate and up, down, and two matrices of the next layer's queries, keys, values.
  struct Layer {
    WeightTiles o, gate, up, down, qk, v;
    const __half* mixed;
    const float *hidden, *weight;
  };
  Layer MakeLayer(const std::array<DType, 5>& types, int64_t d, int64_t d_ff, int64_t kv) {
    auto tiles = [&](DType type, int64_t rows, int64_t cols) {
      WeightTiles w = Tile(type, RandomWeights(type, rows, cols, rng_), rows, cols);
      w.multiplier = 0.01f;
      return w;
    };
    Layer l;
    l.o = tiles(types[0], d, d);
    l.gate = tiles(types[1], d_ff, d);
    l.up = tiles(types[1], d_ff, d);
    l.down = tiles(types[2], d, d_ff);
    l.qk = tiles(types[3], d + kv, d);
    l.v = tiles(types[4], kv, d);
    l.mixed = reinterpret_cast<const __half*>(Upload(ToHalf(RandomFloats(static_cast<size_t>(d), rng_))));
    l.hidden = Upload(RandomFloats(static_cast<size_t>(d), rng_));
    l.weight = Upload(RandomFloats(static_cast<size_t>(d), rng_));
    return l;
  }

  // Queries, keys and values, behind them the residual stream; all from poisoned memory.
  std::vector<float> RunLayer(const Layer& l, bool chained) {
    const size_t kept = buffers_.size();
    const int64_t d = l.o.rows, d_ff = l.gate.rows, qkv = l.qk.rows + l.v.rows;
    auto floats = [&](int64_t n) { return Upload(std::vector<float>(static_cast<size_t>(n), std::nanf(""))); };
    auto halves = [&](int64_t n) {
      return reinterpret_cast<__half*>(Upload(std::vector<uint16_t>(static_cast<size_t>(n), 0x7e00)));
    };
    auto room = [&] {
      cuda::DeferredNorm norm;
      norm.sums = floats(cuda::kDeferredNormBytes / 4);
      norm.prescale = norm.sums + cuda::kDeferredNormRows * cuda::kDeferredNormParts;
      norm.parts = 1;
      norm.d = d;
      norm.epsilon = 1e-5f;
      return norm;
    };
    float *out = floats(qkv + d), *hidden = out + qkv;
    EXPECT_EQ(cudaMemcpy(hidden, l.hidden, static_cast<size_t>(d) * 4, cudaMemcpyDeviceToDevice), cudaSuccess);
    __half *normed = halves(d), *act = halves(d_ff);
    const cuda::MatvecRoom packets = {Upload(std::vector<uint64_t>(cuda::kMatvecRoomBytes / 8, 0)),
                                      Upload(std::vector<uint32_t>(1, 7))};
    cuda::NextNorm next;
    next.before = room();
    next.after = room();
    next.weight = l.weight;
    next.out = normed;
    next.ldo = d;
    EXPECT_TRUE(cuda::RmsNormDeferred(hidden, d, 1, l.weight, next.before, normed, stream()).ok());
    cuda::MatvecQueue queue(packets);
    auto run = [&](cuda::MatvecOp op, bool beside = false) {
      op.beside = beside && chained;
      if (chained) {
        EXPECT_TRUE(queue.Add(op, stream()).ok());
      } else {
        EXPECT_TRUE(cuda::RunMatvecs({&op, 1}, {}, 0, stream()).ok());
      }
    };
    run(cuda::MatvecThenNormOf(l.o, InputOf(l.mixed, d, 1), nullptr, hidden, next));
    MatmulInput in = InputOf(normed, d, 1);
    in.norm = next.after;
    run(cuda::MatvecSwiGluOf(l.gate, l.up, in, act));
    std::swap(next.before, next.after);
    run(cuda::MatvecThenNormOf(l.down, InputOf(act, d_ff, 1), nullptr, hidden, next));
    in.norm = next.after;
    run(cuda::MatvecOf(l.qk, in, nullptr, false, out));
    run(cuda::MatvecOf(l.v, in, nullptr, false, out + l.qk.rows), true);
    EXPECT_TRUE(queue.Flush(stream()).ok());
    std::vector<float> got = Download(out, static_cast<size_t>(qkv + d));
    buffers_.erase(buffers_.begin() + static_cast<std::ptrdiff_t>(kept), buffers_.end());
    return got;
  }

  std::unique_ptr<cuda::Stream> stream_;
  std::vector<DeviceBuffer> buffers_;
  std::mt19937_64 rng_{std::random_device{}()};
};

class MatmulCudaTest : public MatmulCudaTypesTest, public ::testing::WithParamInterface<DType> {};

struct Size {
  int64_t rows, cols;
};

std::vector<Size> SizesFor(DType dtype) {
  if (Info(dtype).block_elements == 256) {
    return {{1, 256}, {16, 256}, {33, 512}, {100, 2304}, {272, 4352}};
  }
  return {{1, 32}, {16, 64}, {33, 96}, {100, 1056}, {272, 4128}};
}

TEST_P(MatmulCudaTest, TilesHoldTheFilesValues) {
  for (const Size size : SizesFor(GetParam())) {
    const auto raw = RandomWeights(GetParam(), size.rows, size.cols, rng_);
    const WeightTiles tiles = Tile(GetParam(), raw, size.rows, size.cols);
    const int64_t ld = (size.cols + 15) / 8 * 8;
    std::vector<uint16_t> poison(static_cast<size_t>(size.rows * ld), 0x7e00);
    uint16_t* out = Upload(poison);
    ASSERT_TRUE(cuda::DequantizeTiles(tiles, reinterpret_cast<__half*>(out), ld, stream()).ok());
    const std::vector<uint16_t> got = Download(out, poison.size());
    std::vector<float> expected(static_cast<size_t>(size.cols));
    for (int64_t r = 0; r < size.rows; ++r) {
      const uint8_t* row = raw.data() + r * RowBytes(GetParam(), size.cols).count();
      DequantizeRow(GetParam(), row, size.cols, expected.data());
      const std::vector<double> terms = TermsOf(GetParam(), row, size.cols);
      for (int64_t c = 0; c < ld; ++c) {
        const uint16_t bits = got[static_cast<size_t>(r * ld + c)];
        if (c >= size.cols) {
          ASSERT_EQ(bits, 0x7e00) << "written past the row";
          continue;
        }
        ASSERT_NEAR(HalfToFloat(bits) * tiles.multiplier, expected[static_cast<size_t>(c)],
                    WeightRounding(GetParam()) * terms[static_cast<size_t>(c)] + kSmallWeightRounding)
            << DTypeName(GetParam()) << " row " << r << " column " << c;
      }
    }
  }
}

TEST_P(MatmulCudaTest, ProductsMatchTheReference) {
  for (const Size size : SizesFor(GetParam())) {
    const auto raw = RandomWeights(GetParam(), size.rows, size.cols, rng_);
    const WeightTiles tiles = Tile(GetParam(), raw, size.rows, size.cols);
    const int64_t ldx = (size.cols + 15) / 8 * 8, ldy = size.rows + 3;
    const std::vector<double> bounds = ProductBounds(GetParam(), raw, size.rows, size.cols);
    for (int n : {1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 64}) {
      auto x16 = ToHalf(RandomFloats(static_cast<size_t>(n * ldx), rng_));
      std::vector<float> x, before = RandomFloats(static_cast<size_t>(n * ldy), rng_);
      for (uint16_t h : x16) x.push_back(HalfToFloat(h));
      const auto bias = RandomFloats(static_cast<size_t>(size.rows), rng_);
      const auto* device_x = reinterpret_cast<const __half*>(Upload(x16));
      for (bool accumulate : {false, true}) {
        float* y = Upload(before);
        ASSERT_TRUE(cuda::SmallMatmul(tiles, InputOf(device_x, ldx, n),
                                      accumulate ? nullptr : Upload(bias), accumulate, y, ldy,
                                      stream())
                        .ok());
        const std::vector<float> got = Download(y, before.size());
        std::vector<float> expected = before;
        MatmulTarget target;
        target.w = {raw.data(), GetParam(), size.rows, size.cols};
        target.bias = accumulate ? nullptr : bias.data();
        target.y = FloatView(expected.data(), n, size.rows, ldy);
        target.accumulate = accumulate;
        MatmulReference(FloatView(x.data(), n, size.cols, ldx), target);
        for (size_t i = 0; i < got.size(); ++i) {
          const size_t row = i % static_cast<size_t>(ldy);
          const double added = accumulate ? before[i] : row < bias.size() ? bias[row] : 0.0f;
          const double bound =
              row < bounds.size()
                  ? bounds[row] + 0x1p-22 * (std::fabs(expected[i]) + std::fabs(added))
                  : 0.0;  // past the row: untouched
          ASSERT_NEAR(got[i], expected[i], bound)
              << DTypeName(GetParam()) << " " << size.rows << "x" << size.cols << " n " << n
              << " activation row " << i / static_cast<size_t>(ldy) << " weight row " << row;
        }
      }
    }
    buffers_.clear();
  }
}

// One row of activations over more strips than multiprocessors, several times around a block's slots,
// with as many tiles a strip as warps, fewer and more.
TEST_P(MatmulCudaTest, OneRowOverManyStrips) {
  const int tile = static_cast<int>(TileCols(TiledType(GetParam())));
  for (const Size size : {Size{16 * 132 * 11 + 5, 3 * tile}, Size{16 * 140, 16 * tile}, Size{2000, 37 * tile}}) {
    const auto raw = RandomWeights(GetParam(), size.rows, size.cols, rng_);
    const WeightTiles tiles = Tile(GetParam(), raw, size.rows, size.cols);
    const auto x16 = ToHalf(RandomFloats(static_cast<size_t>(size.cols), rng_));
    std::vector<float> x, expected(static_cast<size_t>(size.rows));
    for (uint16_t h : x16) x.push_back(HalfToFloat(h));
    float* y = Upload(std::vector<float>(expected.size() + 16, std::nanf("")));
    const MatmulInput in = InputOf(reinterpret_cast<const __half*>(Upload(x16)), size.cols, 1);
    ASSERT_TRUE(cuda::SmallMatmul(tiles, in, nullptr, false, y, size.rows, stream()).ok());
    const std::vector<float> got = Download(y, expected.size() + 16);
    MatmulTarget target;
    target.w = {raw.data(), GetParam(), size.rows, size.cols};
    target.y = FloatView(expected.data(), 1, size.rows);
    MatmulReference(FloatView(x.data(), 1, size.cols), target);
    const std::vector<double> bounds = ProductBounds(GetParam(), raw, size.rows, size.cols);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(got[i], expected[i], bounds[i] + 0x1p-22 * std::fabs(expected[i]))
          << DTypeName(GetParam()) << " " << size.rows << "x" << size.cols << " row " << i;
    }
    for (size_t i = expected.size(); i < got.size(); ++i) ASSERT_TRUE(std::isnan(got[i]));
    buffers_.clear();
  }
}

TEST_P(MatmulCudaTest, SwiGluOfTwoProducts) {
  struct Case {
    int64_t rows;
    std::vector<int> n;
  };
  const int64_t cols = 768;
  for (const auto& [rows, counts] : {Case{112, {1, 5, 12, 32, 40}}, Case{16 * 132 * 5 + 7, {1}}}) {
    const auto gate = RandomWeights(GetParam(), rows, cols, rng_);
    const auto up = RandomWeights(GetParam(), rows, cols, rng_);
    const WeightTiles gate_tiles = Tile(GetParam(), gate, rows, cols);
    const WeightTiles up_tiles = Tile(GetParam(), up, rows, cols);
    const std::vector<double> gate_bounds = ProductBounds(GetParam(), gate, rows, cols);
    const std::vector<double> up_bounds = ProductBounds(GetParam(), up, rows, cols);
    for (int n : counts) {
      auto x16 = ToHalf(RandomFloats(static_cast<size_t>(n * cols), rng_));
      std::vector<float> x, g(static_cast<size_t>(n * rows)), u = g;
      for (uint16_t h : x16) x.push_back(HalfToFloat(h));
      for (auto [raw, out] : {std::pair(&gate, &g), std::pair(&up, &u)}) {
        MatmulTarget target;
        target.w = {raw->data(), GetParam(), rows, cols};
        target.y = FloatView(out->data(), n, rows);
        MatmulReference(FloatView(x.data(), n, cols), target);
      }
      std::vector<float> expected;
      for (size_t i = 0; i < g.size(); ++i) {
        const double v = g[i] / (1.0 + std::exp(-static_cast<double>(g[i]))) * u[i];
        expected.push_back(static_cast<float>(std::clamp(v, -65504.0, 65504.0)));
      }
      uint16_t* out = Upload(std::vector<uint16_t>(g.size(), 0x7e00));
      ASSERT_TRUE(cuda::SmallMatmulSwiGlu(
                      gate_tiles, up_tiles,
                      InputOf(reinterpret_cast<const __half*>(Upload(x16)), cols, n),
                      reinterpret_cast<__half*>(out), rows, stream())
                      .ok());
      const std::vector<uint16_t> got = Download(out, g.size());
      for (size_t i = 0; i < got.size(); ++i) {
        // silu is steepest with 1.1; the exponential and the result's f16 are the last term.
        const size_t row = i % static_cast<size_t>(rows);
        const double silu = g[i] / (1.0 + std::exp(-static_cast<double>(g[i])));
        const double bound = 1.1 * gate_bounds[row] * (std::fabs(u[i]) + up_bounds[row]) +
                             std::fabs(silu) * up_bounds[row] + 0x1p-10 * std::fabs(expected[i]) + 0x1p-24;
        ASSERT_NEAR(HalfToFloat(got[i]), expected[i], bound) << DTypeName(GetParam()) << " n " << n;
      }
    }
    buffers_.clear();
  }
}

// A product that leaves a deferred norm behind, and one that reads it: against norms made whole.
TEST_P(MatmulCudaTest, NormsBetweenProducts) {
  const bool k_type = Info(GetParam()).block_elements == 256;
  for (const Size size : {Size{256, 512}, Size{768, 256}, Size{k_type ? 2304 : 1056, 512}}) {
    const int64_t d = size.rows;
    const auto first = RandomWeights(GetParam(), d, size.cols, rng_);
    const auto second = RandomWeights(GetParam(), 48, d, rng_);
    const WeightTiles first_tiles = Tile(GetParam(), first, d, size.cols);
    const WeightTiles second_tiles = Tile(GetParam(), second, 48, d);
    std::vector<float> weight = RandomFloats(static_cast<size_t>(d), rng_);
    for (int n : {1, 2, 5, 8}) {
      ASSERT_TRUE(cuda::NormFits(first_tiles, n));
      std::vector<float> y = RandomFloats(static_cast<size_t>(n * d), rng_), x;
      auto x16 = ToHalf(RandomFloats(static_cast<size_t>(n * size.cols), rng_));
      for (uint16_t h : x16) x.push_back(HalfToFloat(h));
      const size_t floats = static_cast<size_t>(cuda::kDeferredNormBytes / 4);
      auto room = [&] {
        cuda::DeferredNorm norm;
        norm.sums = Upload(std::vector<float>(floats, std::nanf("")));
        norm.prescale = norm.sums + cuda::kDeferredNormRows * cuda::kDeferredNormParts;
        norm.parts = 1;
        norm.d = d;
        norm.epsilon = 1e-5f;
        return norm;
      };
      const float* device_weight = Upload(weight);
      float* device_y = Upload(y);
      auto* halves = reinterpret_cast<__half*>(Upload(std::vector<uint16_t>(y.size(), 0x7e00)));
      cuda::NextNorm next;
      next.before = room();
      next.after = room();
      next.weight = device_weight;
      next.out = halves;
      next.ldo = d;
      ASSERT_TRUE(cuda::RmsNormDeferred(device_y, d, n, device_weight, next.before, halves, stream()).ok());
      const auto* device_x = reinterpret_cast<const __half*>(Upload(x16));
      ASSERT_TRUE(cuda::SmallMatmulThenNorm(first_tiles, InputOf(device_x, size.cols, n), nullptr,
                                            device_y, d, next, stream())
                      .ok());
      cuda::MatmulInput in = InputOf(halves, d, n);
      in.norm = next.after;
      float* device_out = Upload(std::vector<float>(static_cast<size_t>(n * 48), std::nanf("")));
      ASSERT_TRUE(
          cuda::SmallMatmul(second_tiles, in, nullptr, false, device_out, 48, stream()).ok());
      const std::vector<float> got = Download(device_out, static_cast<size_t>(n * 48));

      MatmulTarget target;
      target.w = {first.data(), GetParam(), d, size.cols};
      target.y = FloatView(y.data(), n, d);
      target.accumulate = true;
      MatmulReference(FloatView(x.data(), n, size.cols), target);
      for (int r = 0; r < n; ++r) {
        double squares = 0;
        for (int64_t i = 0; i < d; ++i) squares += std::pow(static_cast<double>(y[static_cast<size_t>(r * d + i)]), 2);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + 1e-5);
        for (int64_t i = 0; i < d; ++i) {
          float& v = y[static_cast<size_t>(r * d + i)];
          v = static_cast<float>(v * scale * weight[static_cast<size_t>(i)]);
        }
      }
      std::vector<float> expected(static_cast<size_t>(n * 48));
      target = {};
      target.w = {second.data(), GetParam(), 48, d};
      target.y = FloatView(expected.data(), n, 48);
      MatmulReference(FloatView(y.data(), n, d), target);
      EXPECT_LT(RelativeError(got, expected), 5e-3)
          << DTypeName(GetParam()) << " " << d << "x" << size.cols << " n " << n;
    }
    buffers_.clear();
  }
}

// What lies between two attentions in one launch gives the bits of one launch for each, every time.
TEST_F(MatmulCudaTypesTest, ChainsOfOneRowEqualSingleLaunches) {
  const auto has = cuda::HasMatvec();
  ASSERT_TRUE(has.ok());
  if (!*has) GTEST_SKIP() << "this device has no kernel for chains";
  for (const auto& types : std::vector<std::array<DType, 5>>{
           {DType::kQ8_0, DType::kQ8_0, DType::kQ8_0, DType::kQ8_0, DType::kQ8_0},
           {DType::kF16, DType::kF16, DType::kF16, DType::kF16, DType::kF16}}) {
    const Layer layer = MakeLayer(types, 2048, 2816, 256);
    const std::vector<float> expected = RunLayer(layer, false);
    for (float v : expected) ASSERT_TRUE(std::isfinite(v));
    for (int repeat = 0; repeat < 40; ++repeat) {
      ASSERT_EQ(RunLayer(layer, true), expected) << DTypeName(types[0]) << " repeat " << repeat;
    }
    buffers_.clear();
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, MatmulCudaTest, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& type) { return std::string(DTypeName(type.param)); });

}  // namespace
}  // namespace millrace
