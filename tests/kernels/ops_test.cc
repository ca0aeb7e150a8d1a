#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

TEST(NormTest, AgreesWithReference) {
  std::mt19937_64 rng(1);
  for (CpuIsa isa : AvailableIsas()) {
    TestContext context(isa, 2, 64);
    for (int64_t d : {1, 7, 64, 80, 257, 4096}) {
      for (int64_t n : {1, 3, 20}) {
        std::vector<float> x = RandomFloats(n * d, rng, 3.0f), w = RandomFloats(d, rng);
        std::vector<float> y(n * d, NAN), e(n * d);
        RmsNorm(context.get(), FloatView(x.data(), n, d), w.data(), 1e-5f,
                FloatView(y.data(), n, d));
        RmsNormReference(FloatView(x.data(), n, d), w.data(), 1e-5f, FloatView(e.data(), n, d));
        EXPECT_LT(RelativeError(y, e), 1e-6) << d << " " << n << " " << CpuIsaName(isa);
      }
    }
  }
}

TEST(NormTest, HeadNormIsRowNormPerHead) {
  std::mt19937_64 rng(2);
  const int64_t n = 5, heads = 3, d = 80;
  std::vector<float> x = RandomFloats(n * heads * d, rng), w = RandomFloats(d, rng), e(x.size());
  RmsNormReference(FloatView(x.data(), n * heads, d), w.data(), 1e-6f,
                   FloatView(e.data(), n * heads, d));
  TestContext context(DetectCpuIsa(), 2, 64);
  HeadRmsNorm(context.get(), FloatView(x.data(), n, heads * d), d, w.data(), 1e-6f);
  EXPECT_LT(RelativeError(x, e), 1e-6);
}

TEST(SwiGluTest, AgreesWithReferenceOverTheWholeRange) {
  std::mt19937_64 rng(3);
  for (CpuIsa isa : AvailableIsas()) {
    TestContext context(isa, 2, 64);
    for (int64_t d : {1, 5, 96, 1000}) {
      std::vector<float> g = RandomFloats(2 * d, rng, 20.0f), u = RandomFloats(2 * d, rng), e = g;
      if (d > 5) { g[0] = e[0] = -200.0f; g[1] = e[1] = 200.0f; g[2] = e[2] = 0.0f; }
      SwiGlu(context.get(), FloatView(g.data(), 2, d), FloatView(u.data(), 2, d));
      SwiGluReference(FloatView(e.data(), 2, d), FloatView(u.data(), 2, d));
      EXPECT_LT(RelativeError(g, e), 1e-6) << d << " " << CpuIsaName(isa);
    }
  }
}

TEST(RopeTest, AgreesWithReferenceInBothStyles) {
  std::mt19937_64 rng(4);
  RopeSpec spec;
  spec.dims = 48;
  spec.base = 500000.0f;
  spec.frequency_factors = std::vector<float>(24, 1.0f);
  for (int i = 12; i < 24; ++i) spec.frequency_factors[i] = 8.0f;
  const std::vector<double> steps = RopeFrequencies(spec);
  const std::vector<int> positions = {0, 1, 500, 131071};
  TestContext context(DetectCpuIsa(), 2, 64);
  for (RopeStyle style : {RopeStyle::kInterleaved, RopeStyle::kHalfSplit}) {
    std::vector<float> x = RandomFloats(4 * 3 * 64, rng), e = x;
    std::vector<float> table(4 * 48);
    RopeTable(context.get(), positions, steps, table.data());
    Rope(context.get(), FloatView(x.data(), 4, 192), 64, 48, style, table.data());
    RopeReference(FloatView(e.data(), 4, 192), 64, positions, style, steps);
    EXPECT_LT(RelativeError(x, e), 1e-6);
  }
}

TEST(RopeTest, PositionZeroChangesNothingAndPairsDiffer) {
  RopeSpec spec;
  spec.dims = 4;
  const std::vector<double> steps = RopeFrequencies(spec);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_DOUBLE_EQ(steps[0], 1.0);
  EXPECT_NEAR(steps[1], 0.01, 1e-9);
  std::vector<float> x = {1, 2, 3, 4}, y = x;
  RopeReference(FloatView(x.data(), 1, 4), 4, std::vector<int>{0}, RopeStyle::kHalfSplit, steps);
  EXPECT_EQ(x, y);
  RopeReference(FloatView(x.data(), 1, 4), 4, std::vector<int>{1}, RopeStyle::kHalfSplit, steps);
  EXPECT_NEAR(x[0], std::cos(1.0) - 3 * std::sin(1.0), 1e-6);  // pairs (0, 2) and (1, 3)
  RopeReference(FloatView(y.data(), 1, 4), 4, std::vector<int>{1}, RopeStyle::kInterleaved, steps);
  EXPECT_NEAR(y[0], std::cos(1.0) - 2 * std::sin(1.0), 1e-6);  // pairs (0, 1) and (2, 3)
}

TEST(EmbedTest, TakesTheRows) {
  std::mt19937_64 rng(5);
  const std::vector<uint8_t> table = RandomWeights(DType::kQ6_K, 10, 256, rng);
  std::vector<float> out(3 * 256), row(256);
  TestContext context(DetectCpuIsa(), 2, 64);
  const std::vector<TokenId> tokens = {9, 0, 9};
  Embed(context.get(), {table.data(), DType::kQ6_K, 10, 256}, tokens,
        FloatView(out.data(), 3, 256));
  DequantizeRow(DType::kQ6_K, table.data() + 9 * 210, 256, row.data());
  EXPECT_EQ(std::vector<float>(out.begin(), out.begin() + 256), row);
  EXPECT_EQ(std::vector<float>(out.begin() + 512, out.end()), row);
}

// ---- attention ---------------------------------------------------------------------------------

struct CacheBuffers {
  std::vector<uint8_t> k, v;
  KvView view;
};

CacheBuffers MakeCache(DType dtype, int slots, int context, int kv_heads, int head_dim) {
  CacheBuffers c;
  const size_t bytes = static_cast<size_t>(slots) * kv_heads * context *
                       RowBytes(dtype, head_dim).count();
  c.k.assign(bytes, 0xff);  // NaN in every float type: reading what was not written shows
  c.v.assign(bytes, 0xff);
  c.view = {c.k.data(), c.v.data(), dtype, slots, context, kv_heads, head_dim};
  return c;
}

struct Shape {
  int heads, kv_heads, head_dim;
};

// Appends the segments' rows and attends, against the reference over the same cache.
void CheckAttention(CpuIsa isa, DType dtype, const Shape& shape,
                    const std::vector<std::vector<AttentionSegment>>& passes) {
  std::mt19937_64 rng(static_cast<uint64_t>(shape.head_dim) * 31 + static_cast<int>(dtype));
  CacheBuffers cache = MakeCache(dtype, 4, 300, shape.kv_heads, shape.head_dim);
  TestContext context(isa, 3, AttentionScratchBytes(shape.head_dim, 3));
  for (const auto& segments : passes) {
    int64_t n = 0;
    for (const AttentionSegment& s : segments) n += s.rows;
    const int64_t kv = shape.kv_heads * shape.head_dim, qd = shape.heads * shape.head_dim;
    std::vector<float> k = RandomFloats(n * kv, rng), v = RandomFloats(n * kv, rng);
    std::vector<float> q = RandomFloats(n * qd, rng), out(n * qd, NAN), expected(n * qd);
    KvAppend(context.get(), FloatView(k.data(), n, kv), FloatView(v.data(), n, kv), segments,
             cache.view);
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    Attention(context.get(), FloatView(q.data(), n, qd), shape.heads, cache.view, segments, scale,
              FloatView(out.data(), n, qd));
    AttentionReference(FloatView(q.data(), n, qd), shape.heads, cache.view, segments, scale,
                       FloatView(expected.data(), n, qd));
    EXPECT_LT(RelativeError(out, expected), 3e-6)
        << DTypeName(dtype) << " heads " << shape.heads << "/" << shape.kv_heads << " dim "
        << shape.head_dim << " " << CpuIsaName(isa);
  }
}

TEST(AttentionTest, AgreesWithReferenceOverTypesShapesAndSegments) {
  // A prefill, its continuation beside two other sequences, then single tokens of all.
  const std::vector<std::vector<AttentionSegment>> passes = {
      {{2, 0, 0, 70}},
      {{0, 0, 0, 3}, {2, 70, 3, 130}, {1, 0, 133, 1}},
      {{2, 200, 0, 1}, {0, 3, 1, 1}, {1, 1, 2, 1}}};
  for (CpuIsa isa : AvailableIsas()) {
    for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
      for (const Shape& shape : {Shape{4, 4, 32}, Shape{4, 2, 64}, Shape{8, 1, 128},
                                 Shape{3, 1, 96}, Shape{2, 2, 256}}) {
        CheckAttention(isa, dtype, shape, passes);
      }
    }
    CheckAttention(isa, DType::kF16, {2, 1, 80}, passes);
    CheckAttention(isa, DType::kF32, {40, 1, 72}, passes);  // more heads per group than one unit
  }
}

// Many threads and few heads: the context itself is divided, unevenly, with some parts empty for the
// short sequence. The rows around the output stay as they were.
TEST(AttentionTest, DividedContextAgreesWithReference) {
  std::mt19937_64 rng(12);
  constexpr int kContext = 1100, kDim = 64, kCanary = 64;
  for (CpuIsa isa : AvailableIsas()) {
    for (DType dtype : {DType::kF16, DType::kQ8_0}) {
      for (int heads : {1, 3, 12}) {
        CacheBuffers cache = MakeCache(dtype, 2, kContext, 1, kDim);
        TestContext context(isa, 8, AttentionScratchBytes(kDim, 8));
        std::vector<float> k = RandomFloats(kContext * kDim, rng, 2.0f);
        std::vector<float> v = RandomFloats(kContext * kDim, rng);
        const std::vector<AttentionSegment> fill = {{1, 0, 0, kContext}}, few = {{0, 0, 0, 5}};
        for (const auto& s : {fill, few}) {
          KvAppend(context.get(), FloatView(k.data(), kContext, kDim),
                   FloatView(v.data(), kContext, kDim), s, cache.view);
        }
        const std::vector<AttentionSegment> segments = {{1, kContext - 3, 0, 3}, {0, 4, 3, 1}};
        const int64_t n = 4, cols = heads * kDim;
        std::vector<float> q = RandomFloats(n * cols, rng), expected(n * cols);
        std::vector<float> out(n * cols + 2 * kCanary, -777.0f);
        Attention(context.get(), FloatView(q.data(), n, cols), heads, cache.view, segments, 0.5f,
                  FloatView(out.data() + kCanary, n, cols));
        AttentionReference(FloatView(q.data(), n, cols), heads, cache.view, segments, 0.5f,
                           FloatView(expected.data(), n, cols));
        const std::vector<float> inner(out.begin() + kCanary, out.end() - kCanary);
        EXPECT_LT(RelativeError(inner, expected), 3e-6)
            << DTypeName(dtype) << " heads " << heads << " " << CpuIsaName(isa);
        for (int i = 0; i < kCanary; ++i) {
          ASSERT_EQ(out[i], -777.0f);
          ASSERT_EQ(out[out.size() - 1 - i], -777.0f);
        }
      }
    }
  }
}

TEST(AttentionTest, FutureKeysAndOtherSlotsDoNotMatter) {
  std::mt19937_64 rng(9);
  const Shape shape{2, 1, 64};
  TestContext context(DetectCpuIsa(), 2, AttentionScratchBytes(64, 2));
  const std::vector<AttentionSegment> segment = {{1, 0, 0, 10}};
  std::vector<float> k = RandomFloats(10 * 64, rng), v = RandomFloats(10 * 64, rng);
  std::vector<float> q = RandomFloats(10 * 128, rng), first(10 * 128), second(10 * 128);
  CacheBuffers cache = MakeCache(DType::kF16, 2, 16, 1, 64);
  auto run = [&](std::vector<float>& out) {
    KvAppend(context.get(), FloatView(k.data(), 10, 64), FloatView(v.data(), 10, 64), segment,
             cache.view);
    Attention(context.get(), FloatView(q.data(), 10, 128), shape.heads, cache.view, segment, 0.125f,
              FloatView(out.data(), 10, 128));
  };
  run(first);
  for (int d = 0; d < 64; ++d) k[9 * 64 + d] = v[9 * 64 + d] = 50.0f;  // only row 9 may change
  run(second);
  for (int i = 0; i < 9 * 128; ++i) ASSERT_EQ(first[i], second[i]) << "row " << i / 128;
  EXPECT_NE(first[9 * 128], second[9 * 128]);
}

TEST(AttentionTest, LargeScoresStayFinite) {
  CacheBuffers cache = MakeCache(DType::kF32, 1, 128, 1, 32);
  std::vector<float> k(100 * 32, 300.0f), v(100 * 32, 1.0f), q(100 * 32, 300.0f), out(100 * 32);
  for (int i = 0; i < 50 * 32; ++i) k[i] = -300.0f;
  TestContext context(DetectCpuIsa(), 1, AttentionScratchBytes(32, 1));
  const std::vector<AttentionSegment> segment = {{0, 0, 0, 100}};
  KvAppend(context.get(), FloatView(k.data(), 100, 32), FloatView(v.data(), 100, 32), segment,
           cache.view);
  Attention(context.get(), FloatView(q.data(), 100, 32), 1, cache.view, segment, 1.0f,
            FloatView(out.data(), 100, 32));
  for (float f : out) ASSERT_NEAR(f, 1.0f, 1e-5);
}

TEST(ThreadPoolTest, GuidedRunsCoverEachIndexOnce) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 300; ++round) {
      std::vector<int> hits(1 + round * 7, 0);
      pool.ParallelGuided(static_cast<int64_t>(hits.size()),
                          [&](int64_t begin, int64_t end, int thread) {
                            ASSERT_LT(thread, pool.size());
                            for (int64_t i = begin; i < end; ++i) ++hits[i];
                          });
      ASSERT_EQ(hits, std::vector<int>(hits.size(), 1));
    }
  }
}

TEST(ThreadPoolTest, CoversEachIndexOnceAndNamesThreads) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 300; ++round) {
      std::vector<int> hits(1 + round * 7, 0);
      pool.ParallelFor(static_cast<int64_t>(hits.size()), 1 + round % 5,
                       [&](int64_t begin, int64_t end, int thread) {
                         ASSERT_GE(thread, 0);
                         ASSERT_LT(thread, pool.size());
                         for (int64_t i = begin; i < end; ++i) ++hits[i];
                       });
      ASSERT_EQ(std::accumulate(hits.begin(), hits.end(), 0), static_cast<int>(hits.size()));
    }
  }
  EXPECT_GE(UsableThreads(), 1);
}

}  // namespace
}  // namespace millrace
