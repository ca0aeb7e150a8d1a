// RmsNormHalf, SwiGLU, embedding, bias and conversion on a GPU against the references of the CPU.
#include "kernels/elementwise_cuda.h"

#include <algorithm>
#include <tuple>

#include "kernels/cuda/host_copy.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/norm_cuda.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

constexpr float kMaxHalf = 65504.0f;

class ElementwiseCudaTest : public DeviceTest {
 protected:
  // Each half is `want` rounded, where `want` may be off by a few float roundings.
  static void ExpectHalves(const std::vector<uint16_t>& got, const std::vector<float>& want,
                           const std::string& what) {
    ASSERT_EQ(got.size(), want.size()) << what;
    for (size_t i = 0; i < got.size(); ++i) {
      const double expected = std::clamp(want[i], -kMaxHalf, kMaxHalf);
      const double actual = HalfToFloat(got[i]);
      ASSERT_LE(std::abs(actual - expected), 4.95e-4 * std::abs(expected) + 6e-8)
          << what << ", value " << i << ": " << actual << " for " << expected;
    }
  }

  void CheckNorm(int64_t n, int64_t d, int64_t ldx, bool gather) {
    const int64_t x_rows = n + 5;
    std::vector<float> x = RandomFloats(static_cast<size_t>(x_rows * ldx), rng_, 3.0f);
    const std::vector<float> w = RandomFloats(static_cast<size_t>(d), rng_);
    std::vector<int32_t> index(static_cast<size_t>(n));
    for (int32_t& i : index) i = static_cast<int32_t>(Random(0, x_rows - 1));
    const auto dx = Upload(x), dw = Upload(w);
    const auto di = Upload(index);
    const auto out = Poisoned<uint16_t>(static_cast<size_t>(n * d));
    const absl::Status status = cuda::RmsNormHalf(dx.as(), ldx, gather ? di.as() : nullptr, n, d,
                                                  dw.as(), 1e-5f, out.as<__half>(), stream());
    ASSERT_TRUE(status.ok()) << status;
    std::vector<float> want(static_cast<size_t>(n * d));
    for (int64_t r = 0; r < n; ++r) {
      const int64_t from = gather ? index[static_cast<size_t>(r)] : r;
      RmsNormReference(FloatView(x.data() + from * ldx, 1, d), w.data(), 1e-5f,
                       FloatView(want.data() + r * d, 1, d));
    }
    ExpectHalves(Download(out), want, absl::StrCat("n ", n, " d ", d, " ldx ", ldx));
  }
};

TEST_F(ElementwiseCudaTest, RmsNormHalfAgreesWithReference) {
  for (int64_t d : {1, 7, 64, 255, 1024, 2048, 2052, 4096, 5120, 8192, 16384, 16388, 20001}) {
    for (int64_t n : {0, 1, 3, 16}) {
      for (int64_t pad : {0, 3, 8}) {
        CheckNorm(n, d, d + pad, pad != 3);
        CheckNorm(n, d, d + pad, pad == 3);
      }
    }
  }
  CheckNorm(4096, 4096, 4096, false);
}

// To the device and back through pinned memory, every size around a step of the kernel; what lies behind
// stays as it is.
TEST_F(ElementwiseCudaTest, CopyByKernelMovesEveryWord) {
  for (const size_t words : {1u, 3u, 4u, 5u, 1023u, 1027u, 65537u, 2000003u}) {
    const Bytes size(static_cast<int64_t>(4 * words));
    auto from = cuda::PinnedBuffer::Create(size), to = cuda::PinnedBuffer::Create(size + Bytes(16));
    ASSERT_TRUE(from.ok() && to.ok());
    auto* sent = static_cast<uint32_t*>(from->data());
    auto* got = static_cast<uint32_t*>(to->data());
    for (size_t i = 0; i < words; ++i) sent[i] = static_cast<uint32_t>(rng_());
    std::fill(got, got + words + 4, 0xa5a5a5a5u);
    const auto device = Poisoned<uint32_t>(words);
    ASSERT_TRUE(cuda::CopyByKernel(device.as(), sent, size, stream()).ok());
    ASSERT_TRUE(cuda::CopyByKernel(got, device.as(), size, stream()).ok());
    Wait();
    EXPECT_TRUE(std::equal(sent, sent + words, got)) << words;
    for (size_t i = words; i < words + 4; ++i) ASSERT_EQ(got[i], 0xa5a5a5a5u) << words;
    Download(device);  // checks the guard
  }
}

TEST_F(ElementwiseCudaTest, RmsNormHalfSaturates) {
  const std::vector<float> x = {1, -1, 1, -1, 1, -1, 1, -1}, w(8, 1e6f);
  const auto dx = Upload(x), dw = Upload(w);
  const auto out = Poisoned<uint16_t>(8);
  ASSERT_TRUE(
      cuda::RmsNormHalf(dx.as(), 8, nullptr, 1, 8, dw.as(), 0, out.as<__half>(), stream()).ok());
  const std::vector<uint16_t> got = Download(out);
  for (size_t i = 0; i < 8; ++i) EXPECT_EQ(HalfToFloat(got[i]), x[i] * kMaxHalf);
}

TEST_F(ElementwiseCudaTest, SwiGluHalfAgreesWithReference) {
  for (int64_t d_ff : {1, 3, 4, 255, 1024, 1028, 14336}) {
    for (int64_t n : {0, 1, 5, 40}) {
      for (int64_t pad : {0, 1, 4}) {
        const int64_t stride = 2 * d_ff + pad;
        std::vector<float> x = RandomFloats(static_cast<size_t>(n * stride), rng_, 4.0f);
        for (size_t i = 0; i < x.size(); i += 97) x[i] *= 100;  // large both ways; some saturate
        const auto dx = Upload(x);
        const auto out = Poisoned<uint16_t>(static_cast<size_t>(n * d_ff));
        const absl::Status status =
            cuda::SwiGluHalf(dx.as(), stride, n, d_ff, out.as<__half>(), stream());
        ASSERT_TRUE(status.ok()) << status;
        std::vector<float> want;
        for (int64_t r = 0; r < n; ++r) {
          for (int64_t i = 0; i < d_ff; ++i) {
            const double g = x[static_cast<size_t>(r * stride + i)];
            const double u = x[static_cast<size_t>(r * stride + d_ff + i)];
            want.push_back(static_cast<float>(g / (1 + std::exp(-g)) * u));
          }
        }
        ExpectHalves(Download(out), want, absl::StrCat("n ", n, " d_ff ", d_ff, " pad ", pad));
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, SwiGluOfHalvesAgreesWithReference) {
  for (int64_t d_ff : {8, 248, 2048, 14336}) {
    for (int64_t n : {1, 5, 40}) {
      const int64_t stride = 2 * d_ff + 8;
      std::vector<uint16_t> x;
      for (float f : RandomFloats(static_cast<size_t>(n * stride), rng_, 4.0f)) {
        x.push_back(FloatToHalf(f));
      }
      x[3] = 0x7c00;  // an infinite product counts as the largest f16
      const auto dx = Upload(x);
      const auto out = Poisoned<uint16_t>(static_cast<size_t>(n * d_ff));
      ASSERT_TRUE(
          cuda::SwiGluOfHalves(dx.as<__half>(), stride, n, d_ff, out.as<__half>(), stream()).ok());
      auto value = [&](int64_t at) {
        return std::min(65504.0, static_cast<double>(HalfToFloat(x[static_cast<size_t>(at)])));
      };
      std::vector<float> want;
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t i = 0; i < d_ff; ++i) {
          const double g = value(r * stride + i), u = value(r * stride + d_ff + i);
          want.push_back(static_cast<float>(g / (1 + std::exp(-g)) * u));
        }
      }
      ExpectHalves(Download(out), want, absl::StrCat("n ", n, " d_ff ", d_ff));
    }
  }
}

TEST_F(ElementwiseCudaTest, EmbedRowsEqualsDequantizeRowForEveryType) {
  constexpr int64_t kVocab = 37, kCols = 768;
  for (DType dtype : kAllDTypes) {
    const int64_t row_bytes = RowBytes(dtype, kCols).count();
    const std::vector<uint8_t> table = RandomWeights(dtype, kVocab, kCols, rng_);
    for (size_t offset : {0u, 1u, 2u, 7u}) {
      std::vector<uint8_t> shifted(offset, 0xff);
      shifted.insert(shifted.end(), table.begin(), table.end());
      const auto on_device = Upload(shifted);
      std::vector<int32_t> tokens = {0, 36, -1, 37, 5, 5};
      for (int i = 0; i < 30; ++i) tokens.push_back(static_cast<int32_t>(Random(0, kVocab - 1)));
      const int64_t n = static_cast<int64_t>(tokens.size());
      const auto ids = Upload(tokens);
      const auto out = Poisoned<float>(static_cast<size_t>(n * kCols));
      const absl::Status status = cuda::EmbedRows(on_device.as() + offset, dtype, kVocab, kCols,
                                                  ids.as(), n, out.as(), stream());
      ASSERT_TRUE(status.ok()) << status;
      std::vector<float> want(static_cast<size_t>(n * kCols));
      for (int64_t r = 0; r < n; ++r) {
        const int32_t token = tokens[static_cast<size_t>(r)];
        if (token < 0 || token >= kVocab) continue;
        DequantizeRow(dtype, table.data() + token * row_bytes, kCols, want.data() + r * kCols);
      }
      const std::vector<float> got = Download(out);
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(FloatToBits(got[i]), FloatToBits(want[i]))
            << DTypeName(dtype) << " offset " << offset << " value " << i << ": " << got[i]
            << " for " << want[i];
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, AddBiasAddsToItsColumnsOnly) {
  for (const auto& [n, cols, stride] : {std::tuple<int64_t, int64_t, int64_t>{1, 1, 1},
                                        {3, 257, 260},
                                        {40, 4096, 4096},
                                        {7, 100, 333}}) {
    const std::vector<float> y = RandomFloats(static_cast<size_t>(n * stride), rng_);
    const std::vector<float> bias = RandomFloats(static_cast<size_t>(cols), rng_);
    const auto dy = Upload(y), db = Upload(bias);
    const absl::Status status = cuda::AddBias(dy.as(), stride, n, cols, db.as(), stream());
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<float> got = Download(dy);
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t col = i % static_cast<size_t>(stride);
      const float want = col < bias.size() ? y[i] + bias[col] : y[i];
      ASSERT_EQ(got[i], want) << "value " << i << " of " << n << " x " << cols;
    }
  }
}

TEST_F(ElementwiseCudaTest, FloatToHalfRoundsToNearestEvenAndSaturates) {
  for (const auto& [n, d, stride] : {std::tuple<int64_t, int64_t, int64_t>{1, 8, 8},
                                     {3, 257, 261},
                                     {40, 4096, 4096},
                                     {7, 1024, 1032},
                                     {2, 6, 8}}) {
    std::vector<float> x = RandomFloats(static_cast<size_t>(n * stride), rng_, 100.0f);
    const float special[] = {65519.0f, 65520.0f, -1e30f, 1e-7f, -3e-8f, 2.98e-8f, -0.0f, 1e-20f};
    for (size_t i = 0; i < x.size(); i += 5) x[i] = special[rng_() % 8];
    const auto dx = Upload(x);
    const auto out = Poisoned<uint16_t>(static_cast<size_t>(n * d));
    const absl::Status status =
        cuda::FloatToHalf(dx.as(), stride, n, d, out.as<__half>(), stream());
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<uint16_t> got = Download(out);
    for (size_t i = 0; i < got.size(); ++i) {
      const size_t row = i / static_cast<size_t>(d), col = i % static_cast<size_t>(d);
      const float v = x[row * static_cast<size_t>(stride) + col];
      ASSERT_EQ(got[i], FloatToHalf(std::clamp(v, -kMaxHalf, kMaxHalf))) << v;
    }
  }
}

}  // namespace
}  // namespace millrace
