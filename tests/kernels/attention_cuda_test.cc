// Decode and prefill attention on a device against the double-precision reference over the same
// cache contents.
#include "kernels/attention_cuda.h"

#include <algorithm>
#include <numeric>

#include "kernels/cuda/graph.h"
#include "proto/status_macros.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/host_cache.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

TEST(CutTilesTest, CoversEveryRowOnceHeaviestFirst) {
  const std::vector<AttentionSegment> segments = {
      {3, 10, 0, 1}, {0, 0, 1, 300}, {1, 500, 301, 128}};
  const std::vector<cuda::AttentionTile> tiles = cuda::CutTiles(segments);
  ASSERT_EQ(tiles.size(), 5u);
  std::vector<int> seen(429);
  for (size_t i = 0; i < tiles.size(); ++i) {
    const cuda::AttentionTile& t = tiles[i];
    if (i > 0) {
      EXPECT_LE(t.first_position + t.rows, tiles[i - 1].first_position + tiles[i - 1].rows);
    }
    for (int r = t.first_row; r < t.first_row + t.rows; ++r) {
      ++seen[r];
      const AttentionSegment& s = segments[r == 0 ? 0 : r < 301 ? 1 : 2];
      EXPECT_EQ(t.slot, s.slot);
      EXPECT_EQ(t.first_position - t.first_row, s.first_position - s.first_row);
    }
  }
  EXPECT_EQ(seen, std::vector<int>(429, 1));
}

TEST(DecodeSplitsTest, FillsTheDeviceAndStaysInBounds) {
  EXPECT_EQ(cuda::DecodeSplits(132, 8, 1, 1), 1);
  EXPECT_EQ(cuda::DecodeSplits(132, 8, 1, 512), 8);
  EXPECT_EQ(cuda::DecodeSplits(132, 8, 1, 131072), 49);
  EXPECT_EQ(cuda::DecodeSplits(132, 8, 64, 1024), 1);
  for (int n : {1, 7, 300}) {
    for (int context : {1, 100, 1 << 20}) {
      EXPECT_GE(cuda::DecodeSplits(188, 1, n, context), 1);
      EXPECT_LE(cuda::DecodeSplits(188, 1, n, context), cuda::kMaxDecodeSplits);
    }
  }
}

struct Shape {
  int heads, kv_heads, head_dim;
};

// Sequences of these lengths in slots 0, 1, ...; what lies past their ends is NaN.
struct Sequences {
  Sequences(DType dtype, const Shape& s, const std::vector<int>& lengths, uint64_t seed,
            float outlier)
      : rng(seed),
        cache(dtype, static_cast<int>(lengths.size()),
              *std::max_element(lengths.begin(), lengths.end()) + 3, s.kv_heads, s.head_dim) {
    TestContext context(DetectCpuIsa(), 2, 64);
    const int64_t cols = static_cast<int64_t>(s.kv_heads) * s.head_dim;
    for (size_t slot = 0; slot < lengths.size(); ++slot) {
      std::vector<float> k = RandomFloats(lengths[slot] * cols, rng);
      std::vector<float> v = RandomFloats(lengths[slot] * cols, rng);
      for (size_t i = 3; i < k.size(); i += 32) k[i] *= outlier;
      KvAppend(context.get(), FloatView(k.data(), lengths[slot], cols),
               FloatView(v.data(), lengths[slot], cols),
               {AttentionSegment{static_cast<int>(slot), 0, 0, lengths[slot]}}, cache.view);
    }
  }
  std::mt19937_64 rng;
  HostCache cache;
};

std::vector<uint16_t> RandomHalves(size_t n, std::mt19937_64& rng) {
  std::vector<uint16_t> halves;
  for (float f : RandomFloats(n, rng)) halves.push_back(FloatToHalf(f));
  return halves;
}

std::vector<float> Widen(const std::vector<uint16_t>& halves) {
  std::vector<float> x;
  for (uint16_t h : halves) x.push_back(HalfToFloat(h));
  return x;
}

// Softmax weights and results are rounded to f16. So are the cells of f32 and q8_0 before: keys
// `outlier` times as large make errors as much larger in the scores, and beyond a few hundred only
// say that the result is finite. FP32 sums of large products err a little with every type.
double Limit(DType dtype, float outlier) {
  if (dtype == DType::kF16) return 1.5e-3 + 1e-6 * outlier;
  return dtype == DType::kBF16 ? 3e-3 + 1e-6 * outlier : 3e-3 + 4e-4 * (outlier - 1);
}

// Segments of one row each name the rows to compare.
void ExpectRows(const std::vector<uint16_t>& q, const std::vector<uint16_t>& out, const Shape& s,
                const KvView& cache, const std::vector<AttentionSegment>& rows, float scale,
                double limit) {
  const int64_t cols = static_cast<int64_t>(s.heads) * s.head_dim;
  const int64_t n = static_cast<int64_t>(q.size()) / cols;
  std::vector<float> x = Widen(q), expected(x.size());
  AttentionReference(FloatView(x.data(), n, cols), s.heads, cache, rows, scale,
                     FloatView(expected.data(), n, cols));
  for (const AttentionSegment& r : rows) {
    const int64_t at = r.first_row * cols;
    const std::vector<float> e(expected.begin() + at, expected.begin() + at + cols);
    const std::vector<uint16_t> o(out.begin() + at, out.begin() + at + cols);
    EXPECT_LT(RelativeError(Widen(o), e), limit)
        << "row " << r.first_row << " slot " << r.slot << " position " << r.first_position;
  }
}

constexpr uint16_t kUnwritten = 0xffff;  // NaN
constexpr size_t kCanary = 64;           // halves after the output

class AttentionCudaTest : public DeviceTest {
 protected:
  struct DeviceCache {
    DeviceArray<uint8_t> k, v;
    KvView view;
  };
  DeviceCache UploadCache(const HostCache& host) {
    DeviceCache cache{Upload(host.k), Upload(host.v), host.view};
    cache.view.k = cache.k.as();
    cache.view.v = cache.v.as();
    return cache;
  }

  // Twice, into poisoned places: the same bits, nothing past the end. Returns the result.
  template <typename Run>
  std::vector<uint16_t> Twice(size_t count, const Run& run) {
    std::vector<uint16_t> results[2];
    for (std::vector<uint16_t>& r : results) {
      const auto out = Upload(std::vector<uint16_t>(count + kCanary, kUnwritten));
      const absl::Status started = run(out.as<__half>());
      EXPECT_TRUE(started.ok()) << started;
      r = Download(out);
    }
    EXPECT_EQ(results[0], results[1]);
    for (size_t i = count; i < count + kCanary; ++i) EXPECT_EQ(results[0][i], kUnwritten);
    return results[0];
  }

  // One row at the end of each sequence, in the opposite order, a second row of the first sequence,
  // and one row that is left out.
  void CheckDecode(DType dtype, const Shape& s, const std::vector<int>& lengths, int splits,
                   float outlier) {
    SCOPED_TRACE(testing::Message() << DTypeName(dtype) << " heads " << s.heads << "/" << s.kv_heads
                                    << " dim " << s.head_dim << " splits " << splits);
    Sequences seq(dtype, s, lengths, static_cast<uint64_t>(s.head_dim + s.heads), outlier);
    std::vector<int> slots, positions;
    std::vector<AttentionSegment> rows;
    for (int i = static_cast<int>(lengths.size()) - 1; i >= 0; --i) {
      rows.push_back({i, lengths[i] - 1, static_cast<int64_t>(slots.size()), 1});
      slots.push_back(i);
      positions.push_back(lengths[i] - 1);
    }
    rows.push_back({0, lengths[0] / 2, static_cast<int64_t>(slots.size()), 1});  // a second of its
    slots.push_back(0);
    positions.push_back(lengths[0] / 2);
    slots.push_back(0);
    positions.push_back(-1);
    const int n = static_cast<int>(slots.size());
    const size_t cols = static_cast<size_t>(s.heads) * s.head_dim;
    const std::vector<uint16_t> q = RandomHalves(n * cols, seq.rng);
    const DeviceCache cache = UploadCache(seq.cache);
    const auto dq = Upload(q);
    const auto dslots = Upload(slots), dpositions = Upload(positions);
    const auto partials = Upload(std::vector<uint8_t>(
        cuda::DecodePartialBytes(n, s.heads, s.head_dim, splits).count(), 0xff));
    const auto counters =
        Upload(std::vector<uint8_t>(cuda::DecodeCounterBytes(n, s.heads).count(), 0));
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    const std::vector<uint16_t> out = Twice(n * cols, [&](__half* to) {
      return cuda::AttentionDecode(dq.as<const __half>(), s.heads, cache.view,
                                   {dslots.as(), dpositions.as(), n}, scale, splits,
                                   {partials.as<float>(), counters.as<uint32_t>()}, to, stream());
    });
    ExpectRows(q, out, s, seq.cache.view, rows, scale, Limit(dtype, outlier));
    for (size_t i = (n - 1) * cols; i < n * cols; ++i) ASSERT_EQ(out[i], kUnwritten);
    for (uint8_t b : Download(counters)) ASSERT_EQ(b, 0);
  }

  // `segments` over sequences of these lengths; compares every `every`-th row and the tiles' ends.
  void CheckPrefill(DType dtype, const Shape& s, const std::vector<int>& lengths,
                    const std::vector<AttentionSegment>& segments, int every, float outlier) {
    SCOPED_TRACE(testing::Message() << DTypeName(dtype) << " heads " << s.heads << "/" << s.kv_heads
                                    << " dim " << s.head_dim);
    Sequences seq(dtype, s, lengths, static_cast<uint64_t>(s.head_dim + s.heads), outlier);
    int64_t n = 0;
    std::vector<AttentionSegment> rows;
    for (const AttentionSegment& g : segments) {
      n = std::max(n, g.first_row + g.rows);
      for (int64_t r = 0; r < g.rows; ++r) {
        if (r % every != 0 && r % 64 != 63 && r % 64 != 0 && r + 1 != g.rows) continue;
        rows.push_back({g.slot, g.first_position + static_cast<int>(r), g.first_row + r, 1});
      }
    }
    const size_t cols = static_cast<size_t>(s.heads) * s.head_dim;
    const std::vector<uint16_t> q = RandomHalves(n * cols, seq.rng);
    const std::vector<cuda::AttentionTile> tiles = cuda::CutTiles(segments);
    const DeviceCache cache = UploadCache(seq.cache);
    const auto dq = Upload(q);
    const auto dtiles = Upload(tiles);
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    const std::vector<uint16_t> out = Twice(n * cols, [&](__half* to) {
      return cuda::AttentionPrefill(dq.as<const __half>(), s.heads, cache.view, dtiles.as(),
                                    static_cast<int>(tiles.size()), scale, to, stream());
    });
    ExpectRows(q, out, s, seq.cache.view, rows, scale, Limit(dtype, outlier));
    const std::vector<float> all = Widen(out);
    for (size_t i = 0; i < n * cols; ++i) ASSERT_TRUE(std::isfinite(all[i])) << i;
  }

  // RopeAttentionDecode leaves the same bits as RopeAppend and AttentionDecode after it.
  void CheckFused(DType dtype, const Shape& s, const std::vector<int>& lengths, int splits,
                  bool norms, RopeStyle style) {
    SCOPED_TRACE(testing::Message() << DTypeName(dtype) << " heads " << s.heads << "/" << s.kv_heads
                                    << " dim " << s.head_dim << " splits " << splits);
    Sequences seq(dtype, s, lengths, static_cast<uint64_t>(s.head_dim + s.heads), 1.0f);
    const int n = static_cast<int>(lengths.size());
    std::vector<int> slots, positions;
    for (int i = 0; i < n; ++i) slots.push_back(i), positions.push_back(lengths[i] - 1);
    const int64_t stride = int64_t{s.heads + 2 * s.kv_heads} * s.head_dim + 24;
    const auto qkv = Upload(RandomFloats(static_cast<size_t>(n * stride), seq.rng));
    const auto q_norm = Upload(RandomFloats(static_cast<size_t>(s.head_dim), seq.rng));
    const auto k_norm = Upload(RandomFloats(static_cast<size_t>(s.head_dim), seq.rng));
    const auto table = Upload(RandomFloats(static_cast<size_t>(n * s.head_dim), seq.rng));
    const auto dslots = Upload(slots), dpositions = Upload(positions);
    cuda::RopeAppendArgs args;
    args.qkv = qkv.as();
    args.stride = stride;
    args.heads = s.heads;
    if (norms) args.q_norm = q_norm.as(), args.k_norm = k_norm.as();
    args.epsilon = 1e-5f;
    args.table = table.as();
    args.dims = s.head_dim;
    args.style = style;
    const cuda::PassRows rows{dslots.as(), dpositions.as(), n};
    const auto partials = Upload(std::vector<uint8_t>(
        cuda::DecodePartialBytes(n, s.heads, s.head_dim, splits).count(), 0xff));
    const auto counters =
        Upload(std::vector<uint8_t>(cuda::DecodeCounterBytes(n, s.heads).count(), 0));
    const cuda::DecodeWorkspace work{partials.as<float>(), counters.as<uint32_t>()};
    const size_t cols = static_cast<size_t>(s.heads) * s.head_dim;
    const auto q = Poisoned<uint16_t>(n * cols), apart = Poisoned<uint16_t>(n * cols);
    const auto together = Poisoned<uint16_t>(n * cols);
    const DeviceCache one = UploadCache(seq.cache), other = UploadCache(seq.cache);
    ASSERT_TRUE(cuda::RopeAppend(args, rows, q.as<__half>(), one.view, stream()).ok());
    ASSERT_TRUE(cuda::AttentionDecode(q.as<const __half>(), s.heads, one.view, rows, 0.1f, splits,
                                      work, apart.as<__half>(), stream())
                    .ok());
    ASSERT_TRUE(cuda::RopeAttentionDecode(args, other.view, rows, 0.1f, splits, work,
                                          together.as<__half>(), stream())
                    .ok());
    EXPECT_EQ(Download(together), Download(apart));
    EXPECT_EQ(Download(other.k), Download(one.k));
    EXPECT_EQ(Download(other.v), Download(one.v));
  }
};

const std::vector<DType> kTypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0};
const std::vector<int> kHeadDims = {32, 64, 80, 96, 128, 256};

bool Fits(DType dtype, int head_dim) { return dtype != DType::kQ8_0 || head_dim % 32 == 0; }

TEST_F(AttentionCudaTest, DecodeAgreesWithReference) {
  const std::vector<int> lengths = {1, 2, 15, 17, 63, 64, 65, 129, 300, 511, 700};
  for (DType dtype : kTypes) {
    for (int dim : kHeadDims) {
      if (!Fits(dtype, dim)) continue;
      for (int group : {1, 2, 4, 7, 8}) {
        CheckDecode(dtype, {2 * group, 2, dim}, lengths, group % 3 == 1 ? 1 : 5, 1.0f);
      }
    }
    CheckDecode(dtype, {16, 1, 128}, lengths, 12, 1.0f);  // two blocks share a KV head
    CheckDecode(dtype, {12, 1, 64}, lengths, 128, 1.0f);  // more parts than there are positions
    CheckDecode(dtype, {8, 2, 128}, lengths, 3, 40.0f);   // outliers in the keys
  }
}

TEST_F(AttentionCudaTest, RopeAndDecodeInOneLaunch) {
  const std::vector<int> lengths = {1, 2, 63, 64, 65, 300, 511};
  for (DType dtype : kTypes) {
    for (int dim : kHeadDims) {
      if (!Fits(dtype, dim)) continue;
      for (int group : {1, 4, 7, 8}) {
        CheckFused(dtype, {2 * group, 2, dim}, lengths, group == 7 ? 1 : 5, group != 4,
                   group == 8 ? RopeStyle::kInterleaved : RopeStyle::kHalfSplit);
      }
    }
    CheckFused(dtype, {16, 1, 128}, lengths, 12, true, RopeStyle::kHalfSplit);
  }
}

TEST_F(AttentionCudaTest, DecodeOfLongContexts) {
  for (DType dtype : {DType::kF16, DType::kQ8_0}) {
    for (int splits : {1, 7, 49, 128})
      CheckDecode(dtype, {8, 1, 128}, {5000, 3, 4097}, splits, 1.0f);
  }
}

TEST_F(AttentionCudaTest, PrefillAgreesWithReference) {
  // A whole sequence, a continuation, single rows, rows that fill a tile, a short continuation.
  const std::vector<int> lengths = {300, 700, 1, 128, 90};
  const std::vector<AttentionSegment> segments = {
      {1, 530, 0, 170}, {2, 0, 170, 1}, {0, 0, 171, 300}, {3, 0, 471, 128}, {4, 83, 599, 7}};
  for (DType dtype : kTypes) {
    for (int dim : kHeadDims) {
      if (!Fits(dtype, dim)) continue;
      for (int group : {1, 2, 4, 7, 8}) {
        CheckPrefill(dtype, {2 * group, 2, dim}, lengths, segments, 41, 1.0f);
      }
    }
    CheckPrefill(dtype, {4, 2, 128}, lengths, segments, 7, 40.0f);
  }
}

TEST_F(AttentionCudaTest, PrefillOfLongContexts) {
  for (DType dtype : {DType::kF16, DType::kQ8_0}) {
    CheckPrefill(dtype, {2, 1, 128}, {5000}, {{0, 4700, 0, 300}}, 97, 1.0f);
    CheckPrefill(dtype, {2, 1, 64}, {5000}, {{0, 0, 0, 5000}}, 997, 1.0f);
  }
}

// A captured launch reads slots and positions when it runs.
TEST_F(AttentionCudaTest, GraphOfDecodeFollowsThePositions) {
  const Shape s{8, 2, 128};
  const float scale = 0.09f;
  Sequences seq(DType::kF16, s, {400, 230}, 5, 1.0f);
  const std::vector<uint16_t> q = RandomHalves(2 * 8 * 128, seq.rng);
  const DeviceCache cache = UploadCache(seq.cache);
  const auto dq = Upload(q), out = Upload(std::vector<uint16_t>(q.size(), kUnwritten));
  const auto slots = Upload(std::vector<int>{0, 1}), positions = Upload(std::vector<int>{0, 0});
  const auto partials = Poisoned<uint8_t>(cuda::DecodePartialBytes(2, 8, 128, 6).count());
  const auto counters = Upload(std::vector<uint8_t>(cuda::DecodeCounterBytes(2, 8).count(), 0));
  const auto launch = [&] {
    return cuda::AttentionDecode(
        dq.as<const __half>(), s.heads, cache.view, {slots.as(), positions.as(), 2}, scale, 6,
        {partials.as<float>(), counters.as<uint32_t>()}, out.as<__half>(), stream());
  };
  ASSERT_TRUE(launch().ok());
  auto graph = cuda::Graph::Capture(stream(), [&]() -> absl::Status {
    for (int i = 0; i < 3; ++i) MILLRACE_RETURN_IF_ERROR(launch());  // each may overlap the last
    return absl::OkStatus();
  });
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (const std::vector<int>& at : {std::vector<int>{399, 10}, {64, 229}, {0, 63}, {130, 130}}) {
    Overwrite(positions, at);
    ASSERT_TRUE(graph->Launch(stream()).ok());
    ExpectRows(q, Download(out), s, seq.cache.view, {{0, at[0], 0, 1}, {1, at[1], 1, 1}}, scale,
               Limit(DType::kF16, 1.0f));
  }
}

// Scores in the thousands: one key takes all, no infinity anywhere.
TEST_F(AttentionCudaTest, LargeScoresStayFinite) {
  const Shape s{4, 1, 128};
  for (DType dtype : kTypes) {
    CheckDecode(dtype, s, {200, 70}, 3, 3000.0f);
    CheckPrefill(dtype, s, {200}, {{0, 0, 0, 200}}, 13, 3000.0f);
  }
}

}  // namespace
}  // namespace millrace
