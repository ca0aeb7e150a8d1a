// Chains of the demo model's stages in one process, without an engine.
#include "worker/local_stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/fakes/plans.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

StageOptions OneThread() {
  StageOptions options;
  options.threads = 1;
  return options;
}

TEST(LocalStagesTest, AChainLoadsAndSaysWhatEachStageTakes) {
  const std::shared_ptr<const Model> model = *Model::Open("");
  const PlacementPlan plan = PlanWithCuts(model->spec(), {6, 11}, 64);
  std::vector<Bytes> done(3), total(3);
  auto chain = CreateStageChain(model, plan, 0, 3, nullptr, OneThread(), [&](int stage, Bytes d, Bytes t) {
    done[static_cast<size_t>(stage)] = d;
    total[static_cast<size_t>(stage)] = t;
  });
  ASSERT_TRUE(chain.ok()) << chain.status();
  ASSERT_EQ(chain->resident.size(), 3u);
  EXPECT_EQ(done, total);
  for (size_t i = 0; i < 3; ++i) EXPECT_GT(chain->resident[i], total[i]);
  EXPECT_EQ(chain->first->resident_bytes(), chain->resident[0]);
}

TEST(LocalStagesTest, ErrorsNameTheStageAndNothingHangs) {
  const std::shared_ptr<const Model> model = *Model::Open("");
  PlacementPlan plan = PlanWithCuts(model->spec(), {6, 11}, 64);
  plan.stages[1].device = DeviceId("gpu77");
  plan.stages[1].device_kind = DeviceKind::kGpu;
  const auto chain = CreateStageChain(model, plan, 0, 3, nullptr, OneThread(), nullptr);
  ASSERT_FALSE(chain.ok());
  EXPECT_THAT(std::string(chain.status().message()), HasSubstr("stage 1"));
}

TEST(LocalStagesTest, PassErrorsComeThroughTheChain) {
  const std::shared_ptr<const Model> model = *Model::Open("");
  auto first = CreateLocalStages(model, PlanWithCuts(model->spec(), {6, 11}, 64), {});
  ASSERT_TRUE(first.ok()) << first.status();
  Pass pass;
  pass.tokens = {1, 2};
  pass.segments = {{0, 0, 2}};
  OutputRequest output;
  output.row = 1;
  pass.outputs = {output};
  const absl::Time soon = absl::Now() + absl::Seconds(60);
  auto result = (*first)->Run(pass, FloatView(), soon);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->outputs.size(), 1u);
  EXPECT_EQ(result->stage_compute.size(), 3u);
  pass.segments = {{7, 0, 2}};
  EXPECT_EQ((*first)->Run(pass, FloatView(), soon).status().code(),
            absl::StatusCode::kInvalidArgument);
  pass.segments = {{0, 0, 2}};
  EXPECT_EQ((*first)->Run(pass, FloatView(), absl::Now()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE((*first)->Run(pass, FloatView(), soon).ok());
}

}  // namespace
}  // namespace millrace
