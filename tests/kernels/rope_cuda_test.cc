// RopeTable and RopeAppend on a device against the CPU's kernels.
#include "kernels/rope_cuda.h"

#include <algorithm>

#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/host_cache.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

class RopeCudaTest : public DeviceTest {};

TEST_F(RopeCudaTest, TableAgreesWithTheCpu) {
  RopeSpec spec;
  spec.dims = 96;
  spec.base = 500000.0f;
  const std::vector<double> steps = RopeFrequencies(spec);
  const std::vector<int> positions = {0, 1, 17, 4095, 131071};
  const int n = static_cast<int>(positions.size());
  std::vector<float> expected(static_cast<size_t>(n) * 96);
  TestContext context(DetectCpuIsa(), 1, 64);
  RopeTable(context.get(), positions, steps, expected.data());
  const auto rows = Upload(positions);
  const auto frequencies = Upload(steps);
  const auto table = Upload(std::vector<float>(expected.size() + 32, -5.0f));
  const cuda::PassRows pass{nullptr, rows.as(), n};
  ASSERT_TRUE(cuda::RopeTable(pass, frequencies.as(), 48, table.as(), stream()).ok());
  const std::vector<float> got = Download(table);
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(got[i], expected[i], 2e-7) << i;
  for (size_t i = expected.size(); i < got.size(); ++i) ASSERT_EQ(got[i], -5.0f);
}

struct Shape {
  int heads, kv_heads, head_dim, dims;
};

constexpr int kSlots = 3, kContext = 50, kExtra = 24;  // columns after the values
const std::vector<int> kSlotOf = {2, 2, 0, 1, 0, 2, 1};
const std::vector<int> kPositionOf = {0, 1, 17, kContext - 1, -1, 2, 0};  // one row is left out
constexpr uint16_t kUnwritten = 0xabcd;

// A pass's inputs and what the CPU's kernels make of them.
struct Expected {
  Expected(const Shape& s, DType dtype, RopeStyle style, bool norm, uint64_t seed)
      : shape(s), cache(dtype, kSlots, kContext, s.kv_heads, s.head_dim) {
    std::mt19937_64 rng(seed);
    const int n = static_cast<int>(kSlotOf.size());
    const int64_t q_cols = s.heads * s.head_dim, kv_cols = s.kv_heads * s.head_dim;
    stride = q_cols + 2 * kv_cols + kExtra;
    qkv = RandomFloats(static_cast<size_t>(n * stride), rng, 2.0f);
    if (!norm) qkv[5] = 1e6f, qkv[6] = -1e6f;  // beyond f16
    q_norm = RandomFloats(s.head_dim, rng), k_norm = RandomFloats(s.head_dim, rng);
    RopeSpec spec;
    spec.dims = s.dims;
    std::vector<int> positions = kPositionOf;
    for (int& p : positions) p = std::max(p, 0);
    table.resize(static_cast<size_t>(n * s.dims));
    TestContext context(DetectCpuIsa(), 1, 64);
    RopeTable(context.get(), positions, RopeFrequencies(spec), table.data());
    std::vector<float> x = qkv;
    const FloatView q_view(x.data(), n, q_cols, stride);
    const FloatView k_view(x.data() + q_cols, n, kv_cols, stride);
    const FloatView v_view(x.data() + q_cols + kv_cols, n, kv_cols, stride);
    if (norm) HeadRmsNorm(context.get(), q_view, s.head_dim, q_norm.data(), 1e-6f);
    if (norm) HeadRmsNorm(context.get(), k_view, s.head_dim, k_norm.data(), 1e-6f);
    Rope(context.get(), q_view, s.head_dim, s.dims, style, table.data());
    Rope(context.get(), k_view, s.head_dim, s.dims, style, table.data());
    for (int r = 0; r < n; ++r) {
      if (kPositionOf[r] < 0) continue;
      const AttentionSegment one{kSlotOf[r], kPositionOf[r], r, 1};
      KvAppend(context.get(), k_view, v_view, {one}, cache.view);
    }
    for (int r = 0; r < n; ++r) {
      for (int64_t c = 0; c < q_cols; ++c) {
        const float f = std::clamp(q_view.row(r)[c], -65504.0f, 65504.0f);
        q.push_back(kPositionOf[r] < 0 ? kUnwritten : FloatToHalf(f));
      }
    }
  }

  Shape shape;
  int64_t stride = 0;
  std::vector<float> qkv, q_norm, k_norm, table;
  HostCache cache;
  std::vector<uint16_t> q;  // [n, heads * head_dim]
};

// Of each cell [slots, kv_heads, context], whether the pass writes it.
std::vector<bool> WrittenCells(int kv_heads) {
  std::vector<bool> written(static_cast<size_t>(kSlots) * kv_heads * kContext);
  for (size_t r = 0; r < kSlotOf.size(); ++r) {
    if (kPositionOf[r] < 0) continue;
    for (int h = 0; h < kv_heads; ++h) {
      written[(kSlotOf[r] * kv_heads + h) * kContext + kPositionOf[r]] = true;
    }
  }
  return written;
}

std::vector<float> Widen(const std::vector<uint16_t>& halves) {
  std::vector<float> x;
  for (uint16_t h : halves) x.push_back(HalfToFloat(h));
  return x;
}

class RopeAppendTest : public DeviceTest {
 protected:
  void Check(const Shape& shape, DType dtype, RopeStyle style, bool norm) {
    const Expected e(shape, dtype, style, norm, static_cast<uint64_t>(shape.head_dim));
    const HostCache fresh(dtype, kSlots, kContext, shape.kv_heads, shape.head_dim);
    const auto qkv = Upload(e.qkv), q_norm = Upload(e.q_norm), k_norm = Upload(e.k_norm);
    const auto table = Upload(e.table);
    const auto slots = Upload(kSlotOf), at = Upload(kPositionOf);
    const auto k = Upload(fresh.k), v = Upload(fresh.v);
    const auto q = Upload(std::vector<uint16_t>(e.q.size() + 64, kUnwritten));
    cuda::RopeAppendArgs args;
    args.qkv = qkv.as();
    args.stride = e.stride;
    args.heads = shape.heads;
    if (norm) args.q_norm = q_norm.as();
    if (norm) args.k_norm = k_norm.as();
    args.epsilon = 1e-6f;
    args.table = table.as();
    args.dims = shape.dims;
    args.style = style;
    const cuda::PassRows rows{slots.as(), at.as(), static_cast<int>(kSlotOf.size())};
    KvView cache = fresh.view;
    cache.k = k.as();
    cache.v = v.as();
    ASSERT_TRUE(cuda::RopeAppend(args, rows, q.as<__half>(), cache, stream()).ok());
    std::vector<uint16_t> got_q = Download(q);
    for (size_t i = e.q.size(); i < got_q.size(); ++i) ASSERT_EQ(got_q[i], kUnwritten);
    got_q.resize(e.q.size());
    if (!norm) {
      EXPECT_EQ(got_q, e.q);
    }
    EXPECT_LT(RelativeError(Widen(got_q), Widen(e.q)), 1e-3);
    EXPECT_EQ(Download(v), e.cache.v);
    CheckKeys(e, fresh, Download(k), norm);
  }

  // Without a norm bit for bit; with one, sums in another order may move a value by one step.
  static void CheckKeys(const Expected& e, const HostCache& fresh, const std::vector<uint8_t>& k,
                        bool norm) {
    const DType dtype = fresh.view.dtype;
    if (!norm) {
      EXPECT_EQ(k, e.cache.k);
    }
    const int head_dim = fresh.view.head_dim;
    const size_t row_bytes = static_cast<size_t>(RowBytes(dtype, head_dim).count());
    const std::vector<bool> written = WrittenCells(fresh.view.kv_heads);
    std::vector<float> got, expected, row(static_cast<size_t>(head_dim));
    for (size_t cell = 0; cell < written.size(); ++cell) {
      const size_t at = cell * row_bytes;
      if (!written[cell]) {
        ASSERT_EQ(std::memcmp(&k[at], &fresh.k[at], row_bytes), 0) << "cell " << cell;
        continue;
      }
      DequantizeRow(dtype, &k[at], head_dim, row.data());
      got.insert(got.end(), row.begin(), row.end());
      DequantizeRow(dtype, &e.cache.k[at], head_dim, row.data());
      expected.insert(expected.end(), row.begin(), row.end());
    }
    EXPECT_LT(RelativeError(got, expected), dtype == DType::kF32    ? 1e-6
                                            : dtype == DType::kQ8_0 ? 5e-3
                                                                    : 1e-3);
  }
};

TEST_F(RopeAppendTest, AgreesWithTheCpuOverTypesStylesAndShapes) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    for (RopeStyle style : {RopeStyle::kInterleaved, RopeStyle::kHalfSplit}) {
      for (bool norm : {false, true}) {
        for (const Shape& shape : {Shape{4, 2, 64, 64}, Shape{8, 1, 128, 128}, Shape{3, 3, 80, 48},
                                   Shape{7, 1, 96, 32}, Shape{2, 2, 256, 64}, Shape{2, 1, 32, 0}}) {
          if (dtype == DType::kQ8_0 && shape.head_dim % 32 != 0) continue;
          SCOPED_TRACE(testing::Message()
                       << DTypeName(dtype) << " style " << static_cast<int>(style) << " norm "
                       << norm << " dim " << shape.head_dim);
          Check(shape, dtype, style, norm);
        }
      }
    }
  }
}

}  // namespace
}  // namespace millrace
