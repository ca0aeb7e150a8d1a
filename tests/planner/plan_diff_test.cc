#include "planner/plan_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/planner/hand_made_plan.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(PlanDiffTest, EqualPlansAreTheSame) {
  const PlacementPlan plan = Spilled(ResidentPlan(8), 2, 5);
  EXPECT_TRUE(ComparePlans(plan, plan).same());
  EXPECT_EQ(RenderPlanDiff(ComparePlans(plan, plan)), "the plans are the same\n");
}

TEST(PlanDiffTest, HowAPlanIsWrittenOrServedIsNoDifference) {
  const PlacementPlan plan = ResidentPlan(2);
  PlacementPlan served = plan;
  served.format_version = kOldestPlanFormatVersion;
  served.epoch = Epoch{7};
  served.stages[0].address = "127.0.0.1:7601";
  EXPECT_TRUE(ComparePlans(plan, served).same());
}

TEST(PlanDiffTest, MovedBlocksAreGroupedInRanges) {
  const PlacementPlan a = ResidentPlan(8), b = Spilled(a, 2, 6);
  const PlanDiff diff = ComparePlans(a, b);
  ASSERT_EQ(diff.moved.size(), 1u);
  EXPECT_THAT(diff.moved[0].blocks,
              ElementsAre("blk.2.ffn", "blk.3.ffn", "blk.4.ffn", "blk.5.ffn"));
  EXPECT_EQ(diff.moved[0].after_weights, 160_MiB);
  EXPECT_THAT(RenderPlanDiff(diff),
              HasSubstr("  blk.2 .. blk.5 ffn: gpu0 -> RAM, by the CPU up to 32 tokens (4 blocks, "
                        "160 MiB)\n"));
  EXPECT_THAT(RenderPlanDiff(ComparePlans(b, a)),
              HasSubstr("blk.2 .. blk.5 ffn: RAM, by the CPU up to 32 tokens -> gpu0 ("));
}

TEST(PlanDiffTest, BytesByMemoryAndPurposeWithTheirDifference) {
  const PlacementPlan a = ResidentPlan(8);
  PlacementPlan b = Spilled(a, 2, 6);
  b.totals[0].budget = 1_GiB;
  const PlanDiff diff = ComparePlans(a, b);
  std::vector<std::string> lines;
  for (const BytesChange& c : diff.memory) lines.push_back(c.place + " " + c.what);
  EXPECT_THAT(lines,
              ElementsAre("gpu0 budget", "gpu0 used", "gpu0 weights", "gpu0 ring without staging",
                          "gpu0 stream ring", "RAM budget", "RAM used", "RAM weights"));
  EXPECT_EQ(diff.memory[0].before - diff.memory[0].after, 1_GiB);
  EXPECT_EQ(diff.memory[2].before - diff.memory[2].after, 160_MiB);
  EXPECT_EQ(diff.memory[7].before, Bytes(0));
  EXPECT_THAT(RenderPlanDiff(diff), HasSubstr("+160 MiB"));
}

TEST(PlanDiffTest, RoutesSharesCachesAndTypes) {
  const PlacementPlan a = Spilled(ResidentPlan(8), 2, 6);
  PlacementPlan b = a;
  for (int i : {2, 3}) b.blocks[static_cast<size_t>(2 + 2 * i)].host_route_max_tokens = 0;
  b.blocks[10].cpu_shares = {{64, 512}};
  b.blocks[1].kv_home = b.blocks[3].kv_home = Home::kHost;
  b.blocks[5].precision = "q8_0";
  b.blocks[7].weights += 1_MiB;
  const PlanDiff diff = ComparePlans(a, b);
  EXPECT_TRUE(diff.moved.empty());
  ASSERT_EQ(diff.routes.size(), 2u);
  const std::string text = RenderPlanDiff(diff);
  EXPECT_THAT(text,
              HasSubstr("blk.2 .. blk.3 ffn: by the CPU up to 32 tokens -> streamed to gpu0"));
  EXPECT_THAT(text, HasSubstr("512 up to 64"));
  EXPECT_THAT(text, HasSubstr("KV caches that moved\n  blk.0 .. blk.1 attn: gpu0 -> RAM ("));
  EXPECT_THAT(text, HasSubstr("blk.2 attn: q4_K -> q8_0"));
  EXPECT_THAT(text, HasSubstr("blk.3 attn: 20.0 MiB -> 21.0 MiB"));
}

TEST(PlanDiffTest, SettingsStagesAndCuts) {
  const PlacementPlan a = ResidentPlan(4);
  PlacementPlan b = a;
  b.context = 8192;
  b.slots = 4;
  b.kv_type = DType::kQ8_0;
  b.max_pass_tokens = 2048;
  b.stages[0].end_block = 5;
  b.stages.push_back({WorkerId("v"), DeviceId("cpu"), DeviceKind::kCpu, "", 5, 10, Bytes(0)});
  for (size_t i = 5; i < 10; ++i) {
    b.blocks[i].stage = 1;
    b.blocks[i].home = Home::kHost;
  }
  const std::string text = RenderPlanDiff(ComparePlans(a, b));
  EXPECT_THAT(text, StartsWith("context: 4096 -> 8192\nslots: 1 -> 4\nKV cache type: f16 -> q8_0\n"
                               "pass size: 512 -> 2048\n"));
  EXPECT_THAT(text, HasSubstr("  stage 0: w/gpu0 embed .. head -> w/gpu0 embed .. blk.1.ffn\n"
                              "  stage 1: none -> v/cpu blk.2.attn .. head\n"));
  EXPECT_THAT(text, HasSubstr("  blk.2 .. blk.3; head: w/gpu0 -> v/cpu (5 blocks"));
}

TEST(PlanDiffTest, PredictionsAbsoluteAndInPercent) {
  const PlacementPlan a = ResidentPlan(4);
  PlacementPlan b = a;
  b.predicted.decode_tokens_per_second = 75;
  b.predicted.ttft = absl::Milliseconds(60);
  const PlanDiff diff = ComparePlans(a, b);
  ASSERT_EQ(diff.predictions.size(), 2u);
  EXPECT_EQ(diff.predictions[0].name, "decode_tokens_per_second");
  EXPECT_EQ(diff.predictions[0].difference(), -25);
  EXPECT_EQ(diff.predictions[0].percent(), -25);
  EXPECT_EQ(diff.predictions[1].percent(), 20);
  EXPECT_THAT(RenderPlanDiff(diff), StartsWith("predicted "));
  EXPECT_THAT(RenderPlanDiff(diff), HasSubstr("-25.00  -25.0%\n"));
}

TEST(PlanDiffTest, InfiniteAndUndefinedPredictionsDoNotMakeADifference) {
  PlacementPlan a = ResidentPlan(4);
  a.predicted.time_per_token = absl::InfiniteDuration();
  a.predicted.prefill_tokens_per_second = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(ComparePlans(a, a).same());
  const PlanDiff diff = ComparePlans(a, ResidentPlan(4));
  for (const PredictionChange& c : diff.predictions) EXPECT_EQ(c.percent(), 0) << c.name;
}

TEST(PlanDiffTest, OtherModelsAreSaidFirstAndComparedByName) {
  const PlacementPlan a = ResidentPlan(4);
  PlacementPlan b = ResidentPlan(6);
  EXPECT_THAT(RenderPlanDiff(ComparePlans(a, b)), Not(HasSubstr("different models")));
  b.model_fingerprint = "fedcba9876543210";
  const PlanDiff diff = ComparePlans(a, b);
  EXPECT_TRUE(diff.other_model);
  const std::string text = RenderPlanDiff(diff);
  EXPECT_THAT(text, StartsWith("the plans are of different models"));
  EXPECT_THAT(text, HasSubstr("0123456789abcdef -> fedcba9876543210"));
  EXPECT_THAT(text, HasSubstr("blk.4 .. blk.5: none -> gpu0 (4 blocks"));
}

}  // namespace
}  // namespace millrace
