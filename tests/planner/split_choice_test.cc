// Blocks split between CPU and GPU: when the planner does it, and what its simulator says of them.
#include "planner/split_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/prediction.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

// As measured on the reference machine on 2026-11-25.
Machine Measured() {
  Machine machine = kReferenceMachine;
  machine.h2d = 54;
  machine.dram = 113;
  for (const auto& [tokens, gb] :
       {std::pair(1, 109.0), std::pair(8, 47.0), std::pair(32, 33.0), std::pair(256, 6.5)}) {
    machine.cpu_rates.push_back({tokens, Bandwidth::GBPerSecond(gb)});
  }
  return machine;
}

PlacementProblem Problem(int slots, RoutePolicy routes) {
  PlacementProblem p = Llama70BOn(Measured(), 24_GiB, slots, 512);
  p.context = slots == 1 ? 1024 : 256;
  p.routes = routes;
  return p;
}

SteadyPass PassOf(const PlacementProblem& p, const PlacementPlan& plan, int tokens) {
  const MemoryBudget memory(p);
  return Predictor(p, memory, plan).StagePass(0, tokens);
}

std::vector<BlockPlacement> HostFeedForward(const PlacementPlan& plan) {
  std::vector<BlockPlacement> blocks;
  for (const BlockPlacement& b : plan.blocks) {
    if (b.home == Home::kHost && b.block > 0 && b.block % 2 == 0) blocks.push_back(b);
  }
  return blocks;
}

bool AnySplit(const PlacementPlan& plan) {
  const std::vector<BlockPlacement> blocks = HostFeedForward(plan);
  return std::any_of(blocks.begin(), blocks.end(),
                     [](const BlockPlacement& b) { return !b.cpu_shares.empty(); });
}

// Units that the CPU computes of all host-homed blocks in a pass.
int64_t CpuUnits(const PlacementPlan& plan, int tokens) {
  int64_t units = 0;
  for (const BlockPlacement& b : HostFeedForward(plan)) {
    units += CpuWorkOf(b).Units(tokens, 28672);
  }
  return units;
}

TEST(CutGrainTest, ColumnsBeginAtMultiplesOf16BytesWhereThereIsAChoice) {
  ModelSpec m = Llama70B();
  const std::vector<Block> blocks = BlocksOf(m);
  EXPECT_EQ(CutGrain(m, blocks[2]), 2048) << "Q6_K";
  EXPECT_EQ(CutGrain(m, blocks[4]), 1024) << "Q4_K";
  const auto grain = [&](int layer, int d_ff) {
    m.layers[static_cast<size_t>(layer)].d_ff = d_ff;
    return CutGrain(m, blocks[static_cast<size_t>(2 + 2 * layer)]);
  };
  EXPECT_EQ(grain(1, 14336), 512);
  EXPECT_EQ(grain(0, 14336), 512) << "2048 would leave seven";
  EXPECT_EQ(grain(1, 768), 256);
  EXPECT_EQ(grain(1, 256), 256);
}

TEST(SplitChoiceTest, SequencesTogetherKeepLinkAndCpuBusyAtOnce) {
  for (const int n : {8, 32}) {
    PlacementProblem whole = Problem(n, RoutePolicy::kAuto);
    PlacementProblem both = Problem(n, RoutePolicy::kSplit);
    whole.objective.batch = both.objective.batch = n;
    const PlacementPlan before = Planned(whole), plan = Planned(both);
    ASSERT_TRUE(ValidatePlan(both, plan).ok()) << ValidatePlan(both, plan);
    EXPECT_FALSE(AnySplit(before));
    EXPECT_TRUE(AnySplit(plan));
    const SteadyPass pass = PassOf(both, plan, n);
    EXPECT_LT(pass.seconds, 0.97 * PassOf(whole, before, n).seconds) << n;
    EXPECT_GT(pass.copy_share, 0.97);
    EXPECT_GT(pass.cpu_share, 0.9);
  }
}

TEST(SplitChoiceTest, APromptLendsTheCpuALittle) {
  PlacementProblem whole = Problem(1, RoutePolicy::kAuto), both = Problem(1, RoutePolicy::kSplit);
  whole.objective = both.objective = {1, 0, 256};
  const PlacementPlan before = Planned(whole), plan = Planned(both);
  EXPECT_EQ(CpuUnits(before, 256), 0) << "a whole block takes the CPU too long";
  EXPECT_GT(CpuUnits(plan, 256), 0);
  // Planned for prompts, whole blocks with their own ring come out as fast.
  EXPECT_LT(plan.predicted.ttft, 1.02 * before.predicted.ttft);
}

TEST(SplitChoiceTest, LargerPassesLeaveTheCpuNoMore) {
  const PlacementPlan plan = Planned(Problem(32, RoutePolicy::kSplit));
  int64_t before = CpuUnits(plan, 4);
  for (int n = 5; n <= 512; ++n) {
    EXPECT_LE(CpuUnits(plan, n), before) << n;
    before = CpuUnits(plan, n);
  }
  EXPECT_EQ(CpuUnits(plan, 513), 0);
}

TEST(SplitChoiceTest, OneTokenIsAsFastAsWithWholeBlocks) {
  const PlacementProblem p = Problem(1, RoutePolicy::kSplit);
  const PlacementProblem whole = Problem(1, RoutePolicy::kAuto);
  const PlacementPlan plan = Planned(p);
  ASSERT_TRUE(ValidatePlan(p, plan).ok()) << ValidatePlan(p, plan);
  for (const BlockPlacement& b : HostFeedForward(plan)) {
    EXPECT_EQ(b.host_route_max_tokens, 0);
    const int units = CpuWorkOf(b).Units(1, 28672);
    EXPECT_GT(units, 0);
    EXPECT_LT(units, 28672);
    EXPECT_EQ(units % kUnitGrain, 0);
  }
  EXPECT_LT(PassOf(p, plan, 1).seconds, 1.02 * PassOf(whole, Planned(whole), 1).seconds);
  const std::string text = RenderPlanTable(plan);
  EXPECT_THAT(text, ::testing::HasSubstr("split between CPU and stream"));
  EXPECT_THAT(text, ::testing::HasSubstr("units by the CPU in passes of tokens"));
}

// The ring and its staging hold the largest slice of any pass.
TEST(SplitChoiceTest, SlicesOfEveryPassAreCounted) {
  PlacementProblem p = Problem(8, RoutePolicy::kSplit);
  SetPass(p, 16);  // no pass streams a whole block
  const PlacementPlan plan = Planned(p);
  ASSERT_TRUE(ValidatePlan(p, plan).ok()) << ValidatePlan(p, plan);
  for (const BlockPlacement& b : HostFeedForward(plan)) {
    EXPECT_GT(CpuWorkOf(b).LeastUnits(16, 28672), 0);
  }
}

TEST(SplitChoiceTest, RandomProblemsGiveValidPlans) {
  std::mt19937 rng(77);
  int split = 0;
  for (int round = 0; round < 1500; ++round) {
    PlacementProblem p = RandomProblem(rng);
    p.routes = round % 2 == 0 ? RoutePolicy::kSplit : RoutePolicy::kAuto;
    const auto result = Solve(p);
    ASSERT_TRUE(result.ok()) << result.status();
    if (!result->plan.has_value()) continue;
    ASSERT_TRUE(ValidatePlan(p, *result->plan).ok()) << ValidatePlan(p, *result->plan);
    for (const BlockPlacement& b : result->plan->blocks) split += !b.cpu_shares.empty();
  }
  EXPECT_GT(split, 20);
}

TEST(SplitValidatorTest, CatchesDamage) {
  const PlacementProblem p = Problem(8, RoutePolicy::kSplit);
  const PlacementPlan good = Planned(p);
  const int cut = HostFeedForward(good)[0].block;
  const auto refusal = [&](const PlacementProblem& problem, auto change) {
    PlacementPlan plan = good;
    change(plan.blocks[cut].cpu_shares, plan);
    return std::string(ValidatePlan(problem, plan).message());
  };
  using ::testing::HasSubstr;
  EXPECT_EQ(refusal(p, [](auto&, auto&) {}), "");
  EXPECT_THAT(refusal(p, [](auto& s, auto&) { s[0].units += 16; }), HasSubstr("is cut at"));
  EXPECT_THAT(refusal(p, [](auto& s, auto&) { s[0].units = 28672 + 256; }), HasSubstr("is cut at"));
  EXPECT_THAT(refusal(p, [](auto& s, auto&) { s[1].max_tokens = s[0].max_tokens; }),
              HasSubstr("has a share for passes"));
  EXPECT_THAT(refusal(p, [](auto& s, auto&) { s.back().max_tokens = 1 << 20; }),
              HasSubstr("has a share for passes"));
  EXPECT_THAT(refusal(p, [](auto&, auto& plan) { plan.blocks[1].cpu_shares = {{1, 256}}; }),
              HasSubstr("is split"));
  PlacementProblem other = p;
  for (RoutePolicy routes : {RoutePolicy::kAuto, RoutePolicy::kStream, RoutePolicy::kCpu}) {
    other.routes = routes;
    EXPECT_THAT(refusal(other, [](auto&, auto&) {}), HasSubstr("no block was to be"));
  }
}

}  // namespace
}  // namespace millrace
