#include "planner/baselines.h"

#include <gtest/gtest.h>

#include <random>

#include "planner/solver.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

double PlannedSeconds(const PlacementProblem& problem) {
  return absl::ToDoubleSeconds((*FindPlan(problem))->predicted.time_per_token);
}

TEST(BaselinesTest, OneDeviceThatHoldsAllIsAllThreeAndThePlan) {
  const auto baselines = ComputeBaselines(Llama70BOn(kReferenceMachine, 80_GiB));
  ASSERT_EQ(baselines.size(), 3u);
  for (const Baseline& b : baselines) {
    ASSERT_TRUE(b.seconds.has_value()) << b.name;
    EXPECT_NEAR(*b.seconds, PlannedSeconds(Llama70BOn(kReferenceMachine, 80_GiB)), 1e-9) << b.name;
  }
}

TEST(BaselinesTest, OffloadedTheyArePredictedAsThePlanIs) {
  const PlacementProblem p = Llama70BOn(kReferenceMachine, 24_GiB);
  for (const Baseline& b : ComputeBaselines(p)) {
    ASSERT_TRUE(b.seconds.has_value()) << b.name;
    EXPECT_NEAR(*b.seconds, PlannedSeconds(p), 1e-9) << b.name;
  }
}

// A slow GPU before a fast one, the model within either: who fills in order pays for it.
TEST(BaselinesTest, FillingInOrderTakesTheSlowGpuFirst) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(8, false, rng, false, 512));
  HostSpec host = CpuHost("w", 1_GiB, 50);
  const Bytes room = 8_MiB + p.model.weight_bytes();
  host.devices = {Gpu("gpu0", room, 200, 20), Gpu("gpu1", room, 2000, 20)};
  p.cluster.hosts = {host};
  const auto baselines = ComputeBaselines(p);
  const double plan = PlannedSeconds(p);
  EXPECT_GT(*baselines[0].seconds, 2 * plan);
  EXPECT_GT(*baselines[1].seconds, 1.2 * plan);
  EXPECT_NEAR(*baselines[2].seconds, plan, 1e-9);
}

// What the GPU does not hold goes to the CPU beside it, and is not called impossible.
TEST(BaselinesTest, FillingGoesOnWithTheCpu) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(8, false, rng, false, 512));
  HostSpec host = CpuHost("w", 1_GiB, 50);
  host.devices.insert(host.devices.begin(),
                      Gpu("gpu0", 8_MiB + Bytes(p.model.weight_bytes().count() / 2), 2000, 20));
  p.cluster.hosts = {host};
  const auto baselines = ComputeBaselines(p);
  ASSERT_TRUE(baselines[0].seconds.has_value());
  EXPECT_GE(*baselines[0].seconds, PlannedSeconds(p) - 1e-9);
}

}  // namespace
}  // namespace millrace
