// A worker reads what is free again before it loads stages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "proto/convert.h"
#include "worker/worker.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// All of the demo model on this worker's CPU.
PlacementPlan DemoPlan(Epoch epoch) {
  const std::shared_ptr<const Model> model = *Model::Open("");
  const std::vector<Block> blocks = BlocksOf(model->spec());
  PlacementPlan plan;
  plan.epoch = epoch;
  plan.model_fingerprint = FingerprintOf(model->spec());
  plan.context = 64;
  plan.slots = 1;
  plan.max_pass_tokens = 16;
  Stage stage;
  stage.worker = WorkerId("w0");
  stage.device = DeviceId("cpu");
  stage.end_block = static_cast<int>(blocks.size());
  plan.stages = {stage};
  for (int b = 0; b < stage.end_block; ++b) {
    BlockPlacement placed;
    placed.block = b;
    placed.name = BlockName(blocks[b]);
    placed.weights = blocks[b].weights;
    plan.blocks.push_back(placed);
  }
  plan.ledger = {{stage.worker, "cpu", Purpose::kWeights, 16_MiB},
                 {stage.worker, "cpu", Purpose::kOverhead, 900_GiB}};
  return plan;
}

TEST(WorkerMemoryTest, APlanThatNoLongerFitsIsRefusedAndLoadsOnceItFitsAgain) {
  Bytes available = 3_MiB;
  WorkerOptions options;
  options.host.worker = WorkerId("w0");
  options.host.threads = 1;
  options.host.memory_total = options.host.budget = 1_GiB;
  options.memory.host_available = [&available] { return available; };
  Worker worker(options);
  const auto load = [&worker](int epoch) {
    return worker.Load(DemoPlan(Epoch{epoch}), {0}, 0, [](int, Bytes, Bytes) {}).status();
  };
  const absl::Status refused = load(1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("host memory: the plan takes 16.0 MiB, 3.00 MiB are free now"),
                    HasSubstr("--replan")));
  EXPECT_EQ(worker.loaded_epoch(), Epoch{});
  EXPECT_EQ(worker.Budgets().budget, 3_MiB);
  available = 1_GiB;
  EXPECT_TRUE(load(2).ok()) << load(3);
  EXPECT_EQ(worker.loaded_epoch(), Epoch{2});
  EXPECT_EQ(worker.Budgets().budget, 1_GiB);
}

}  // namespace
}  // namespace millrace
