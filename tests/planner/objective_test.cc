// What a plan is to be fast at changes what it is.
#include "proto/objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/objective_passes.h"
#include "planner/prediction.h"
#include "planner/solver.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(ObjectivePassesTest, ARoundInPasses) {
  PlacementProblem p;
  p.max_pass_tokens = 256;
  p.objective = {2, 10, 600};
  const std::vector<WeightedPass> passes = PassesOf(p);
  ASSERT_EQ(passes.size(), 3);
  EXPECT_EQ(passes[0].shape.tokens, 2);
  EXPECT_FALSE(passes[0].shape.prefill);
  EXPECT_EQ(passes[0].weight, 10);
  EXPECT_EQ(passes[1].shape.tokens, 256);
  EXPECT_TRUE(passes[1].shape.prefill);
  EXPECT_EQ(passes[1].weight, 4);
  EXPECT_EQ(passes[2].shape.tokens, 88);
  EXPECT_EQ(passes[2].weight, 2);
}

TEST(ObjectivePassesTest, MoreSequencesThanAPassHoldsTakeSeveral) {
  PlacementProblem p;
  p.max_pass_tokens = 4;
  p.objective = {16, 1, 0};
  const std::vector<WeightedPass> passes = PassesOf(p);
  ASSERT_EQ(passes.size(), 1);
  EXPECT_EQ(passes[0].shape.tokens, 4);
  EXPECT_EQ(passes[0].weight, 4);
}

double RoundSeconds(PlacementProblem problem, const PlacementPlan& plan, Objective objective) {
  problem.objective = objective;
  const MemoryBudget memory(problem);
  return Predictor(problem, memory, plan).ObjectiveSeconds();
}

// Each of the plans is the best, or within what the search's formula is off, at what it was made for;
// and at least one is better there than the others by more than that.
TEST(ObjectiveTest, EachPlanIsBestAtItsOwn) {
  constexpr double kFormula = 1.01;
  const std::vector<Objective> objectives = {{1, 1, 0}, {8, 1, 0}, {1, 0, 512}};
  PlacementProblem p = Llama70BOn(MeasuredMachine(), 24_GiB, 8, 512);
  std::vector<PlacementPlan> plans;
  for (const Objective& objective : objectives) {
    p.objective = objective;
    plans.push_back(Planned(p));
    EXPECT_EQ(plans.back().objective, objective);
    EXPECT_NEAR(absl::ToDoubleSeconds(plans.back().predicted.objective_time),
                RoundSeconds(p, plans.back(), objective), 1e-9);
  }
  double most = 1;
  for (size_t i = 0; i < plans.size(); ++i) {
    const double own = RoundSeconds(p, plans[i], objectives[i]);
    for (const PlacementPlan& other : plans) {
      const double theirs = RoundSeconds(p, other, objectives[i]);
      EXPECT_LE(own, theirs * kFormula) << ObjectiveText(objectives[i]);
      most = std::max(most, theirs / own);
    }
  }
  EXPECT_GT(most, 1.02);
}

TEST(ObjectiveTest, MoreThanThePlanHoldsIsRefused) {
  PlacementProblem p = Llama70BOn(MeasuredMachine(), 24_GiB, 4, 512);
  p.objective = {8, 1, 0};
  EXPECT_THAT(std::string(Solve(p).status().message()), HasSubstr("slots is 4"));
  p.objective = {1, 0, p.context + 1};
  EXPECT_THAT(std::string(Solve(p).status().message()), HasSubstr("raise --ctx"));
}

}  // namespace
}  // namespace millrace
