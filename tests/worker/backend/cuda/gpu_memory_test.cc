#include "worker/backend/cuda/gpu_memory.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "worker/activation_arena.h"

namespace millrace {
namespace {

ModelSpec Llama8B() {
  ModelSpec m;
  m.d_model = 4096;
  m.vocab = 128256;
  m.rope.dims = 128;
  m.layers.assign(32, LayerSpec{32, 8, 128, 14336});
  return m;
}

struct Range {
  size_t begin, bytes;
};

// The buffers that are in use at once during an attention or a feed-forward half.
std::vector<Range> AlwaysInUse(const GpuActivationLayout& l, size_t n, const ModelSpec& m) {
  const auto d = static_cast<size_t>(m.d_model);
  const auto rows = static_cast<size_t>(kMaxLogitRows);
  return {{l.hidden, n * d * 4},
          {l.normed, n * d * 2},
          {l.rope, n * 128 * 4},
          {l.dequantized[0], l.dequantized_bytes},
          {l.dequantized[1], l.dequantized_bytes},
          {l.cublas, l.cublas_bytes},
          {l.packed, l.packed_bytes},
          {l.attention, l.attention_bytes},
          {l.meta, l.meta_bytes},
          {l.logit_rows, rows * d * 2},
          {l.logits, rows * static_cast<size_t>(m.vocab) * 4},
          {l.sampling, l.sampling_bytes}};
}

std::vector<std::pair<int, LargeProducts>> Shapes() {
  std::vector<std::pair<int, LargeProducts>> shapes;
  for (int tokens : {1, 64, 65, 100, 2048}) {
    shapes.push_back({tokens, LargeProducts::kDequantized});
    shapes.push_back({tokens, LargeProducts::kDirect});
  }
  return shapes;
}

void ExpectApart(const std::vector<Range>& ranges, size_t total) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(ranges[i].begin % 256, 0u) << i;
    EXPECT_LE(ranges[i].begin + ranges[i].bytes, total) << i;
    for (size_t j = 0; j < i; ++j) {
      if (ranges[i].bytes == 0 || ranges[j].bytes == 0) continue;
      EXPECT_TRUE(ranges[i].begin + ranges[i].bytes <= ranges[j].begin ||
                  ranges[j].begin + ranges[j].bytes <= ranges[i].begin)
          << i << " and " << j;
    }
  }
}

TEST(GpuMemoryTest, BuffersOfOneHalfNeverOverlap) {
  const ModelSpec m = Llama8B();
  for (const auto& [tokens, products] : Shapes()) {
    const auto n = static_cast<size_t>(tokens);
    const GpuActivationLayout l = LayOutGpuActivations(m, tokens, 4, 8192, true, products);
    std::vector<Range> attention = AlwaysInUse(l, n, m), feed_forward = attention;
    attention.insert(attention.end(),
                     {{l.qkv, n * 6144 * 4}, {l.q, n * 4096 * 2}, {l.mixed, n * 4096 * 2}});
    feed_forward.insert(feed_forward.end(),
                        {{l.gate_up, n * 28672 * 4}, {l.act, n * 14336 * 2}});
    ExpectApart(attention, l.total_bytes);
    ExpectApart(feed_forward, l.total_bytes);
  }
}

TEST(GpuMemoryTest, OnlyLargePassesDequantiseOrPack) {
  const ModelSpec m = Llama8B();
  const auto at = [&](int tokens, LargeProducts products) {
    return LayOutGpuActivations(m, tokens, 1, 4096, true, products);
  };
  EXPECT_EQ(at(64, LargeProducts::kDequantized).dequantized_bytes, 0u);
  EXPECT_EQ(at(65, LargeProducts::kDequantized).dequantized_bytes, size_t{2} * 28672 * 4096);
  EXPECT_EQ(at(65, LargeProducts::kDequantized).packed_bytes, 0u);
  EXPECT_EQ(at(16, LargeProducts::kDirect).packed_bytes, 0u);
  EXPECT_EQ(at(17, LargeProducts::kDirect).packed_bytes, size_t{2} * 24 * 14336);
  EXPECT_EQ(at(65, LargeProducts::kDirect).packed_bytes, size_t{2} * 72 * 14336);
  EXPECT_EQ(at(65536, LargeProducts::kDirect).packed_bytes, size_t{128} << 20);
  EXPECT_EQ(at(65, LargeProducts::kDirect).dequantized_bytes, 0u);
  EXPECT_EQ(at(65, LargeProducts::kDirect).cublas_bytes, 0u);
}

TEST(GpuMemoryTest, NeedsAreTheLayoutsSizes) {
  const ModelSpec m = Llama8B();
  for (const LargeProducts products : {LargeProducts::kDequantized, LargeProducts::kDirect}) {
    const ActivationNeeds needs = GpuActivationNeeds(m, 512, 2, 4096, products);
    const auto middle = LayOutGpuActivations(m, 512, 2, 4096, false, products);
    const auto last = LayOutGpuActivations(m, 512, 2, 4096, true, products);
    EXPECT_EQ(needs.body.count(), static_cast<int64_t>(middle.total_bytes));
    EXPECT_EQ((needs.body + needs.last_extra).count(), static_cast<int64_t>(last.total_bytes));
    EXPECT_EQ(needs.first_extra, Bytes(0));
    const ActivationShape shape = {512, /*threads=*/4, 2, 4096,
                                   products == LargeProducts::kDirect};
    const ActivationNeeds through = ActivationNeedsOf(m, shape, DeviceKind::kGpu);
    EXPECT_EQ(through.body, needs.body);
    EXPECT_EQ(through.last_extra, needs.last_extra);
    EXPECT_NE(ActivationNeedsOf(m, shape, DeviceKind::kCpu).body, needs.body);
  }
}

TEST(GpuMemoryTest, TheWidestLayerCounts) {
  ModelSpec m = Llama8B();
  const size_t even = LayOutGpuActivations(m, 512, 1, 4096, false, LargeProducts::kDequantized).total_bytes;
  m.layers[7].d_ff *= 2;
  EXPECT_GT(LayOutGpuActivations(m, 512, 1, 4096, false, LargeProducts::kDequantized).total_bytes, even);
}

}  // namespace
}  // namespace millrace
