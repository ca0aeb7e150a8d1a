// The search against a solver of linear programs that knows nothing of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "planner/milp_model.h"
#include "planner/stage_search.h"
#include "tests/planner/random_problem.h"
#include "tools/cbc.h"

namespace millrace {
namespace {

constexpr double kNoPlacement = -1;

// Microseconds, and whether some stage may keep caches in host memory: the model cannot.
struct Searched {
  double microseconds = kNoPlacement;
  bool caches = false;
};

Searched SearchIn(const PlacementProblem& problem) {
  const ResolvedPins pins = *ResolvePins(problem);
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  Searched searched;
  const auto result = SearchStages(problem.cluster, table);
  EXPECT_TRUE(result.ok() && (result->stages.empty() || result->proven()));
  if (!result->stages.empty()) searched.microseconds = 1e6 * result->seconds;
  for (int d = 0; d < table.devices(); ++d) {
    for (int i = 0; i < table.size(); ++i) {
      for (int j = i + 1; j <= table.size(); ++j) {
        const StageOption& option = table.Option(d, i, j);
        searched.caches |= option.fits && option.kv_on_host > 0;
      }
    }
  }
  return searched;
}

// True where a ring costs time: see planner/milp_model.h.
bool AnyStall(const CbcAnswer& answer) {
  return std::any_of(answer.values.begin(), answer.values.end(), [](const auto& value) {
    return value.first[0] == 'w' && value.second > 1e-9;
  });
}

// One host with one GPU that holds so many percent of the weights, and memory for all beside it.
void LeaveOneGpuWithRoomFor(int percent, PlacementProblem& problem) {
  problem.cluster.hosts.resize(1);
  problem.pins.clear();
  HostSpec& host = problem.cluster.hosts[0];
  const Bytes weights = problem.model.weight_bytes();
  host.budget = host.memory_total = 64_MiB + weights * 4;
  host.devices = {Gpu("gpu0", 12_MiB + Bytes(weights.count() * percent / 100), 400, 20)};
}

bool CbcIsHere() { return !absl::IsNotFound(RunCbc("", absl::Seconds(1)).status()); }

TEST(MilpOracleTest, TheSearchFindsWhatTheLinearProgramProves) {
  if (!CbcIsHere()) GTEST_SKIP() << "cbc is not installed (Debian: coinor-cbc)";
  std::mt19937 rng(41);
  int equal = 0, offloaded = 0, infeasible = 0, several = 0, bounds = 0;
  for (int round = 0; round < 320; ++round) {
    PlacementProblem problem = round % 2 ? RandomProblem(rng) : RandomManyDevices(rng);
    if (problem.model.layers.size() > (round % 2 ? 3 : 2)) continue;  // more takes seconds each
    problem.objective = {};  // what the linear program states
    if (round % 4 < 2) LeaveOneGpuWithRoomFor(10 + static_cast<int>(rng() % 60), problem);
    if (round % 3 == 0) problem.routes = static_cast<RoutePolicy>(1 + round % 2);
    const Searched searched = SearchIn(problem);
    if (searched.caches) continue;
    const auto lp = PlacementMilp(problem, MilpScope::kExact);
    ASSERT_TRUE(lp.ok()) << lp.status();
    const auto answer = RunCbc(*lp, absl::Seconds(20));
    ASSERT_TRUE(answer.ok()) << answer.status() << " round " << round;
    if (!answer->infeasible && !answer->optimal) continue;  // out of time
    ASSERT_EQ(answer->infeasible, searched.microseconds == kNoPlacement) << "round " << round;
    infeasible += answer->infeasible;
    if (answer->infeasible) continue;
    EXPECT_LE(answer->objective, searched.microseconds * (1 + 1e-6)) << "round " << round;
    const bool forced =
        problem.routes == RoutePolicy::kCpu || problem.routes == RoutePolicy::kStream;
    bounds += !forced && AnyStall(*answer);
    if (!forced && AnyStall(*answer)) continue;
    EXPECT_NEAR(answer->objective, searched.microseconds, searched.microseconds * 1e-6)
        << "round " << round;
    ++equal;
    int runs = 0;
    bool homes = false;
    for (const auto& [name, value] : answer->values) {
      runs += name[0] == 's' && name[1] != 't' && value > 0.5;
      homes |= name[0] == 'o' && value > 0.5;
    }
    several += runs > 1;
    offloaded += homes;
  }
  EXPECT_GT(equal, 80);
  EXPECT_GT(offloaded, 15);
  EXPECT_GT(several, 20);
  EXPECT_GT(infeasible, 20);
  std::printf(
      "%d equal, of them %d with several stages and %d with host homes; %d infeasible, "
      "%d bounds\n",
      equal, several, offloaded, infeasible, bounds);
}

TEST(MilpOracleTest, TheBoundIsNeverAboveTheSearch) {
  if (!CbcIsHere()) GTEST_SKIP() << "cbc is not installed (Debian: coinor-cbc)";
  std::mt19937 rng(42);
  int checked = 0;
  for (int round = 0; round < 200 && checked < 15; ++round) {
    PlacementProblem problem = RandomProblem(rng);
    if (problem.model.layers.size() > 3) continue;
    problem.objective = {};
    problem.context = 2048;  // caches that may have to go to host memory
    problem.cluster.hosts[0].disk_bandwidth = Bandwidth::GBPerSecond(1);
    const Searched searched = SearchIn(problem);
    if (searched.microseconds == kNoPlacement) continue;
    const auto answer = RunCbc(*PlacementMilp(problem, MilpScope::kBound), absl::Seconds(20));
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_FALSE(answer->infeasible) << "round " << round;
    EXPECT_LE(answer->bound, searched.microseconds * (1 + 1e-6)) << "round " << round;
    ++checked;
  }
  EXPECT_GT(checked, 10);
}

TEST(CbcTest, ReadsWhatCbcPrints) {
  const auto done = *ParseCbc("Continuous objective value is 2.5 - 0.00 seconds\n",
                              "Optimal - objective value 3.25000000\n      0 x0_1   1    0\n");
  EXPECT_TRUE(done.optimal);
  EXPECT_EQ(done.objective, 3.25);
  EXPECT_EQ(done.bound, 3.25);
  EXPECT_EQ(done.values.at("x0_1"), 1);
  const auto stopped = *ParseCbc(
      "Continuous objective value is 2.5 - 0.00 seconds\n"
      "Objective value:   4.0\nLower bound:      3.125\n",
      "Stopped on time - objective value 4.00000000\n");
  EXPECT_FALSE(stopped.optimal);
  EXPECT_EQ(stopped.bound, 3.125);
  EXPECT_TRUE(ParseCbc("", "Infeasible - objective value 0.0\n")->infeasible);
  EXPECT_FALSE(ParseCbc("", "what?\n").ok());
}

}  // namespace
}  // namespace millrace
