#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/bench_ceiling.h"
#include "tools/bench_stats.h"
#include "tools/llama_bench.h"

namespace millrace {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsSubsetOf;
using ::testing::Not;

// One layer; every matrix [10, 10] f16.
ModelSpec SmallModel() {
  ModelSpec m;
  m.d_model = 10;
  m.vocab = 10;
  m.layers = {LayerSpec{1, 1, 10, 10}};
  for (auto [role, layer] :
       {std::pair(TensorRole::kTokenEmbedding, -1), std::pair(TensorRole::kAttnQ, 0),
        std::pair(TensorRole::kFfnUp, 0), std::pair(TensorRole::kOutput, -1)}) {
    TensorSpec t;
    t.role = role;
    t.layer = layer;
    t.dtype = DType::kF16;
    t.shape = {10, 10};
    t.size = Bytes(200);
    m.tensors.push_back(t);
  }
  return m;
}

// embed and attention on "gpu0", feed-forward and head on "gpu0#1".
PlacementPlan TwoStages() {
  PlacementPlan plan;
  plan.kv_type = DType::kF16;
  plan.stages = {{WorkerId("local"), DeviceId("gpu0"), DeviceKind::kGpu, "", 0, 2},
                 {WorkerId("local"), DeviceId("gpu0#1"), DeviceKind::kGpu, "", 2, 4}};
  return plan;
}

HostSpec TwoDevices() {
  HostSpec host;
  DeviceSpec device;
  device.kind = DeviceKind::kGpu;
  device.id = DeviceId("gpu0");
  device.memory_bandwidth = Bandwidth::BytesPerSecond(1000);
  device.prefill_flops = 1000;
  host.devices.push_back(device);
  device.id = DeviceId("gpu0#1");
  device.memory_bandwidth = Bandwidth::BytesPerSecond(2000);
  device.prefill_flops = 2000;
  host.devices.push_back(device);
  return host;
}

TEST(BenchCeilingTest, StagesFollowOneAnother) {
  // Attention 200 B at 1000 B/s; feed-forward and head 400 B at 2000 B/s.
  EXPECT_NEAR(DecodeCeiling(SmallModel(), TwoStages(), TwoDevices(), 1, 0), 1 / 0.4, 1e-9);
  EXPECT_NEAR(DecodeCeiling(SmallModel(), TwoStages(), TwoDevices(), 8, 0), 8 / 0.4, 1e-9);
  // 40 B of cache per token and sequence on the first.
  EXPECT_NEAR(DecodeCeiling(SmallModel(), TwoStages(), TwoDevices(), 2, 5), 2 / (0.4 + 0.4), 1e-9);
  // 100 weights of each half layer; embedding and head not counted.
  EXPECT_NEAR(PrefillCeiling(SmallModel(), TwoStages(), TwoDevices()), 1 / (0.2 + 0.1), 1e-9);
}

TEST(BenchCeilingTest, ConvertedTensorsAreReadAsTheyAreHeld) {
  ModelSpec model = SmallModel();
  model.tensors[1].name = "q";
  model.tensors[1].shape = {10, 32};
  model.tensors[1].size = Bytes(640);
  PlacementPlan plan = TwoStages();
  EXPECT_NEAR(DecodeCeiling(model, plan, TwoDevices(), 1, 0), 1 / (0.64 + 0.2), 1e-9);
  plan.blocks.resize(4);
  plan.blocks[1].stored_types = {{"q", DType::kQ8_0}};  // 10 rows of 34 B
  EXPECT_NEAR(DecodeCeiling(model, plan, TwoDevices(), 1, 0), 1 / (0.34 + 0.2), 1e-9);
}

TEST(BenchCeilingTest, UnknownDevicesHaveNone) {
  HostSpec host = TwoDevices();
  host.devices.pop_back();
  EXPECT_EQ(DecodeCeiling(SmallModel(), TwoStages(), host, 1, 0), 0);
  EXPECT_EQ(PrefillCeiling(SmallModel(), TwoStages(), host), 0);
  host = TwoDevices();
  host.devices[0].memory_bandwidth = Bandwidth();
  EXPECT_EQ(DecodeCeiling(SmallModel(), TwoStages(), host, 1, 0), 0);
}

TEST(BenchStatsTest, MedianAndEnds) {
  const BenchStats stats = Summarize({3, 1, 2, 10});
  EXPECT_EQ(stats.median, 2.5);
  EXPECT_EQ(stats.min, 1);
  EXPECT_EQ(stats.max, 10);
}

TEST(LlamaBenchTest, CommandFollowsThePlan) {
  PeerRequest request{"llama-bench", "m.gguf", {512, 4096}, 64, 16, 3};
  const auto cpu = LlamaBenchCommand(request);
  EXPECT_THAT(std::vector<std::string>({"-ngl", "0", "-t", "16", "-p", "512,4096"}),
              IsSubsetOf(cpu));
  EXPECT_THAT(cpu, Not(Contains("-fa")));
  EXPECT_THAT(cpu, Not(Contains("-d")));
  request.gpu = true;
  request.depth = 1000;
  const auto gpu = LlamaBenchCommand(request);
  EXPECT_THAT(std::vector<std::string>({"-ngl", "99", "-fa", "1", "-d", "0,1000"}),
              IsSubsetOf(gpu));
}

TEST(LlamaBenchTest, ReadsDepthWhereItIsGiven) {
  const auto results = ParseLlamaBench(
      R"([{"n_prompt": 512, "n_gen": 0, "avg_ts": 10.5},
          {"n_prompt": 0, "n_gen": 64, "n_depth": 1000, "avg_ts": 2}])");
  ASSERT_TRUE(results.ok()) << results.status();
  ASSERT_EQ(results->size(), 2u);
  EXPECT_EQ((*results)[0].depth, 0);
  EXPECT_EQ((*results)[1].depth, 1000);
  EXPECT_EQ((*results)[1].tokens_per_second, 2);
  EXPECT_FALSE(ParseLlamaBench(R"([{"n_prompt": 512, "n_gen": 0}])").ok());
  EXPECT_FALSE(ParseLlamaBench("{}").ok());
}

}  // namespace
}  // namespace millrace
