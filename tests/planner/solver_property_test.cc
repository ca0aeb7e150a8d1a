// What holds of every plan, on thousands of random problems.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <random>

#include "planner/infeasibility.h"
#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/solver.h"
#include "planner/stage_search.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

PlacementProblem AnyProblem(std::mt19937& rng) {
  return rng() % 2 ? RandomProblem(rng) : RandomManyDevices(rng);
}

// What the search counts, before whole blocks are simulated; nullopt: nothing fits.
std::optional<double> SearchedSeconds(const PlacementProblem& problem) {
  const ResolvedPins pins = *ResolvePins(problem);
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  const auto result = SearchStages(problem.cluster, table);
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok() || result->stages.empty()) return std::nullopt;
  EXPECT_TRUE(result->proven());
  return result->seconds;
}

TEST(SolverPropertyTest, EveryPlanPassesTheValidatorAndIsTheSameAgain) {
  std::mt19937 rng(31);
  int planned = 0;
  for (int round = 0; round < 4000; ++round) {
    const PlacementProblem problem = AnyProblem(rng);
    const auto plan = FindPlan(problem);
    ASSERT_TRUE(plan.ok()) << plan.status() << " round " << round;
    if (!plan->has_value()) continue;
    ++planned;
    EXPECT_TRUE(ValidatePlan(problem, **plan).ok())
        << ValidatePlan(problem, **plan) << " round " << round;
    if (round % 10 == 0) {
      EXPECT_EQ(RenderPlanTable(**FindPlan(problem)), RenderPlanTable(**plan));
    }
  }
  EXPECT_GT(planned, 800);
}

// One memory grows: a GPU's, a CPU's with its host's, or a host's beside them.
void Grow(std::mt19937& rng, PlacementProblem& problem) {
  HostSpec& host = problem.cluster.hosts[rng() % problem.cluster.hosts.size()];
  const Bytes more(static_cast<int64_t>(rng() % 8'000'000));
  const size_t pick = rng() % (host.devices.size() + 1);
  if (pick == host.devices.size()) {
    host.budget += more;
    return;
  }
  DeviceSpec& device = host.devices[pick];
  device.budget += more;
  if (device.kind == DeviceKind::kCpu) host.budget += more;
}

TEST(SolverPropertyTest, MoreMemoryIsNeverSlowerToTheSearch) {
  std::mt19937 rng(32);
  int faster = 0, now_fit = 0;
  for (int round = 0; round < 6000; ++round) {
    PlacementProblem problem = AnyProblem(rng);
    const std::optional<double> before = SearchedSeconds(problem);
    Grow(rng, problem);
    const std::optional<double> after = SearchedSeconds(problem);
    now_fit += !before && after;
    if (!before) continue;
    ASSERT_TRUE(after.has_value()) << "round " << round;
    EXPECT_LE(*after, *before * (1 + 1e-9)) << "round " << round;
    faster += *after < *before * (1 - 1e-9);
  }
  EXPECT_GT(faster, 300);
  EXPECT_GT(now_fit, 100);
}

TEST(SolverPropertyTest, TheOrderOfWorkersAndDevicesDoesNotMatter) {
  std::mt19937 rng(33);
  int compared = 0;
  for (int round = 0; round < 3000; ++round) {
    PlacementProblem problem = AnyProblem(rng);
    problem.pins.clear();
    const std::optional<double> before = SearchedSeconds(problem);
    std::shuffle(problem.cluster.hosts.begin(), problem.cluster.hosts.end(), rng);
    for (HostSpec& h : problem.cluster.hosts) std::shuffle(h.devices.begin(), h.devices.end(), rng);
    const std::optional<double> after = SearchedSeconds(problem);
    ASSERT_EQ(before.has_value(), after.has_value()) << "round " << round;
    if (!before) continue;
    ++compared;
    EXPECT_NEAR(*before, *after, *before * 1e-9) << "round " << round;
  }
  EXPECT_GT(compared, 500);
}

TEST(SolverPropertyTest, RenamingEqualWorkersAndDevicesChangesNamesOnly) {
  std::mt19937 rng(34);
  int compared = 0;
  for (int round = 0; round < 3000; ++round) {
    PlacementProblem problem = RandomManyDevices(rng);
    const auto plan = *FindPlan(problem);
    if (!plan.has_value()) continue;
    // Names move one worker on, and within each worker one device on.
    const size_t workers = problem.cluster.hosts.size();
    for (size_t h = 0; h < workers; ++h) {
      HostSpec& host = problem.cluster.hosts[h];
      host.worker = WorkerId("w" + std::to_string((h + 1) % workers));
      for (size_t d = 0; d < host.devices.size(); ++d) {
        host.devices[d].id = DeviceId("d" + std::to_string((d + 1) % host.devices.size()));
      }
    }
    const auto renamed = *FindPlan(problem);
    ASSERT_TRUE(renamed.has_value());
    ++compared;
    EXPECT_EQ(plan->predicted.time_per_token, renamed->predicted.time_per_token);
    ASSERT_EQ(plan->stages.size(), renamed->stages.size()) << "round " << round;
    for (size_t s = 0; s < plan->stages.size(); ++s) {
      EXPECT_EQ(plan->stages[s].end_block, renamed->stages[s].end_block) << "round " << round;
      EXPECT_EQ(plan->stages[s].device_kind, renamed->stages[s].device_kind);
      EXPECT_NE(plan->stages[s].worker, renamed->stages[s].worker);
    }
  }
  EXPECT_GT(compared, 300);
}

bool RunFits(const PlacementProblem& problem, int first, int end) {
  const ResolvedPins pins = *ResolvePins(problem);
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  return first == end || !SearchRun(problem.cluster, table, first, end)->stages.empty();
}

TEST(SolverPropertyTest, TheNamedSetDoesNotFitAndDoesWithoutEitherEnd) {
  std::mt19937 rng(35);
  int checked = 0, part = 0;
  for (int round = 0; round < 3000; ++round) {
    const PlacementProblem problem = AnyProblem(rng);
    const auto result = *Solve(problem);
    if (!result.infeasible) continue;
    const std::vector<Block> blocks = BlocksOf(problem.model);
    const std::vector<std::string>& set = result.infeasible->smallest_set;
    ASSERT_FALSE(set.empty());
    const auto at = std::find_if(blocks.begin(), blocks.end(),
                                 [&](const Block& b) { return BlockName(b) == set.front(); });
    const int first = static_cast<int>(at - blocks.begin());
    const int end = first + static_cast<int>(set.size());
    ASSERT_EQ(BlockName(blocks[end - 1]), set.back());
    EXPECT_FALSE(RunFits(problem, first, end)) << "round " << round;
    EXPECT_TRUE(RunFits(problem, first + 1, end)) << "round " << round;
    EXPECT_TRUE(RunFits(problem, first, end - 1)) << "round " << round;
    EXPECT_GT(result.infeasible->needed, Bytes(0));
    ++checked;
    part += set.size() > 1 && set.size() < blocks.size();
  }
  EXPECT_GT(checked, 150);
  EXPECT_GT(part, 20);
}

// The problem with that memory at another budget.
PlacementProblem With(PlacementProblem problem, const Infeasibility::BudgetFix& fix, Bytes budget) {
  for (HostSpec& host : problem.cluster.hosts) {
    if (host.worker != fix.worker) continue;
    if (fix.memory == "host") host.budget = budget;
    for (DeviceSpec& d : host.devices) {
      if (d.id.value() != fix.memory) continue;
      if (d.kind == DeviceKind::kCpu) host.budget += budget - std::min(d.budget, host.budget);
      d.budget = budget;
    }
  }
  return problem;
}

TEST(SolverPropertyTest, TheNearestBudgetDoesAndOneMebibyteLessDoesNot) {
  std::mt19937 rng(36);
  int checked = 0;
  for (int round = 0; round < 3000; ++round) {
    const PlacementProblem problem = AnyProblem(rng);
    const auto result = *Solve(problem);
    if (!result.infeasible || result.infeasible->nearest_budget.size() != 1) continue;
    const Infeasibility::BudgetFix fix = result.infeasible->nearest_budget.front();
    const int all = static_cast<int>(BlocksOf(problem.model).size());
    EXPECT_TRUE(RunFits(With(problem, fix, fix.wanted), 0, all)) << "round " << round;
    const Bytes less = fix.wanted - std::min(Bytes(1_MiB), fix.wanted - fix.budget);
    EXPECT_FALSE(RunFits(With(problem, fix, less), 0, all)) << "round " << round;
    ++checked;
  }
  EXPECT_GT(checked, 150);
}

}  // namespace
}  // namespace millrace
