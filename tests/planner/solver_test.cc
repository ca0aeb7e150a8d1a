#include "planner/solver.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "planner/infeasibility.h"
#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/stage_options.h"
#include "tests/planner/brute_force.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

TEST(SolverTest, EqualsBruteForceAndValidatesOnRandomProblems) {
  std::mt19937 rng(11);
  int feasible = 0, infeasible = 0, offloaded = 0;
  for (int round = 0; round < 1500; ++round) {
    const PlacementProblem problem = RandomProblem(rng);
    const auto result = Solve(problem);
    ASSERT_TRUE(result.ok()) << result.status();
    const ResolvedPins pins = *ResolvePins(problem);
    const MemoryBudget memory(problem);
    const CostModel cost(problem, memory);
    const StageTable table(problem, memory, cost, pins);
    const double best = BruteForce(table).Run();
    EXPECT_NEAR(SearchSeconds(table, *FindStages(problem, table, pins)), best,
                std::abs(best) * 1e-6);
    ASSERT_EQ(result->plan.has_value(), best >= 0) << "round " << round;
    ASSERT_NE(result->plan.has_value(), result->infeasible.has_value());
    if (!result->plan) {
      ++infeasible;
      continue;
    }
    ++feasible;
    const bool offloads = std::any_of(
        result->plan->stages.begin(), result->plan->stages.end(),
        [](const Stage& s) { return s.stream_ring > Bytes(0); });
    offloaded += offloads;
    // The search counts in fluid, the prediction in whole blocks: of models of a few layers they are
    // near, not equal. A duration is rounded to a quarter of a nanosecond.
    const double predicted = absl::ToDoubleSeconds(result->plan->predicted.objective_time);
    EXPECT_NEAR(predicted, best, offloads ? best / 2 : best * 1e-6 + 1e-9) << "round " << round;
    EXPECT_TRUE(ValidatePlan(problem, *result->plan).ok())
        << ValidatePlan(problem, *result->plan) << " round " << round;
  }
  EXPECT_GT(feasible, 200);
  EXPECT_GT(offloaded, 50);
  EXPECT_GT(infeasible, 200);
}

TEST(SolverTest, IsDeterministicAndMoreMemoryIsNeverSlower) {
  std::mt19937 rng(12);
  for (int round = 0; round < 300; ++round) {
    PlacementProblem problem = RandomProblem(rng);
    const auto first = *Solve(problem), again = *Solve(problem);
    ASSERT_EQ(first.plan.has_value(), again.plan.has_value());
    if (!first.plan) continue;
    EXPECT_EQ(RenderPlanTable(*first.plan), RenderPlanTable(*again.plan));
    for (HostSpec& h : problem.cluster.hosts) {
      h.budget *= 2;
      for (DeviceSpec& d : h.devices) d.budget *= 2;
    }
    const auto more = *Solve(problem);
    ASSERT_TRUE(more.plan.has_value());
    EXPECT_LE(more.plan->predicted.objective_time,
              first.plan->predicted.objective_time + absl::Nanoseconds(1));
  }
}

TEST(SolverTest, NearestBudgetFitsAndOnePercentLessDoesNot) {
  std::mt19937 rng(13);
  int checked = 0;
  for (int round = 0; round < 200; ++round) {
    PlacementProblem problem = RandomProblem(rng);
    const auto result = *Solve(problem);
    if (!result.infeasible || result.infeasible->nearest_budget.size() != 1) continue;
    const auto fix = result.infeasible->nearest_budget.front();
    auto solvable_at = [&](Bytes budget) {
      PlacementProblem p = problem;
      for (HostSpec& h : p.cluster.hosts) {
        if (h.worker != fix.worker) continue;
        DeviceSpec& d = h.devices[0];
        if (d.kind == DeviceKind::kCpu || fix.memory == "host") {
          h.budget = fix.memory == "host" ? budget : std::max(h.budget, budget);
        }
        if (fix.memory != "host") d.budget = budget;
      }
      return Solve(p)->plan.has_value();
    };
    EXPECT_TRUE(solvable_at(fix.wanted)) << "round " << round;
    EXPECT_FALSE(solvable_at(Bytes(fix.wanted.count() * 99 / 100))) << "round " << round;
    ++checked;
  }
  EXPECT_GT(checked, 30);
}

PlacementProblem TwoWorkers(Bytes each) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(8, true, rng, false));
  p.cluster.hosts = {CpuHost("a", each, 20), CpuHost("b", each, 20)};
  return p;
}

TEST(SolverTest, SplitsWhenNeitherWorkerHoldsTheModel) {
  PlacementProblem p = TwoWorkers(Bytes(0));
  const Bytes total = p.model.weight_bytes();
  p = TwoWorkers(Bytes(total.count() * 3 / 4));
  const auto result = *Solve(p);
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_EQ(result.plan->stages.size(), 2u);
}

TEST(SolverTest, DoesNotSplitWhatFitsOnOne) {
  const auto result = *Solve(TwoWorkers(1_GiB));
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_EQ(result.plan->stages.size(), 1u);
}

TEST(SolverTest, SpillsToHostWhenVramIsShort) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(8, false, rng, false, 512));
  HostSpec host = CpuHost("w", 1_GiB, 100);
  // Cache and activations take 2 MiB each, ring and staging 4.
  host.devices = {Gpu("gpu0", 8_MiB + Bytes(p.model.weight_bytes().count() * 3 / 4), 4000, 50)};
  p.cluster.hosts = {host};
  const auto result = *Solve(p);
  ASSERT_TRUE(result.plan.has_value());
  int on_host = 0;
  for (const BlockPlacement& b : result.plan->blocks) {
    if (b.home != Home::kHost) continue;
    ++on_host;
    EXPECT_TRUE(b.block == 0 || b.block % 2 == 0) << "the table and feed-forward halves go first";
  }
  EXPECT_GT(on_host, 0);
  EXPECT_EQ(result.plan->blocks[0].home, Home::kHost);
  EXPECT_TRUE(ValidatePlan(p, *result.plan).ok());
}

TEST(SolverTest, ForcedRoutesAreObeyed) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(8, false, rng, false, 512));
  HostSpec host = CpuHost("w", 1_GiB, 100);
  host.devices = {Gpu("gpu0", 8_MiB + Bytes(p.model.weight_bytes().count() * 3 / 4), 4000, 50)};
  p.cluster.hosts = {host};
  for (RoutePolicy routes : {RoutePolicy::kCpu, RoutePolicy::kStream}) {
    p.routes = routes;
    const PlacementPlan plan = *Solve(p)->plan;
    const int wanted = routes == RoutePolicy::kCpu ? p.max_pass_tokens : 0;
    EXPECT_EQ(plan.stages[0].stream_ring > Bytes(0), routes == RoutePolicy::kStream);
    int on_host = 0;
    for (const BlockPlacement& b : plan.blocks) {
      if (b.home != Home::kHost || b.name.find("ffn") == std::string::npos) continue;
      ++on_host;
      EXPECT_EQ(b.host_route_max_tokens, wanted) << b.name;
    }
    EXPECT_GT(on_host, 0);
  }
}

TEST(SolverTest, SixteenDevicesAndEightyLayersInUnderASecond) {
  std::mt19937 rng(2);
  PlacementProblem p = BaseProblem(TestModel(80, false, rng, false));
  Bytes total = p.model.weight_bytes();
  for (const LayerSpec& l : p.model.layers) {
    total += KvCacheBytes(l, p.kv_type, p.context, p.slots);
  }
  const Bytes share(total.count() / 13);
  for (int i = 0; i < 16; ++i) p.cluster.hosts.push_back(CpuHost("w" + std::to_string(i), share, 20));
  const absl::Time begin = absl::Now();
  const auto result = Solve(p);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_TRUE(result->plan.has_value());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(5));  // generous: sanitizers and shared machines
}

TEST(SolverTest, RefusesBadProblemsByName) {
  PlacementProblem p = TwoWorkers(1_GiB);
  p.pins = {{"nothing.*", "a"}};
  EXPECT_NE(Solve(p).status().message().find("nothing.*"), absl::string_view::npos);
  p.pins = {{"blk.*", "mars"}};
  EXPECT_NE(Solve(p).status().message().find("mars"), absl::string_view::npos);
  p.pins.clear();
  p.cluster.hosts.clear();
  EXPECT_FALSE(Solve(p).ok());
  p = TwoWorkers(1_GiB);
  p.context = 0;
  EXPECT_NE(Solve(p).status().message().find("context"), absl::string_view::npos);
}

TEST(SolverTest, ObeysPins) {
  PlacementProblem p = TwoWorkers(1_GiB);
  p.pins = {{"blk.7.*", "b"}, {"embed", "a/cpu"}};
  const auto result = *Solve(p);
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_TRUE(ValidatePlan(p, *result.plan).ok());
  EXPECT_EQ(result.plan->stages.size(), 2u);
  p.pins = {{"blk.1.ffn", "device"}};  // no GPU anywhere
  const auto impossible = *Solve(p);
  ASSERT_TRUE(impossible.infeasible.has_value());
  EXPECT_EQ(impossible.infeasible->smallest_set, std::vector<std::string>{"blk.1.ffn"});
}

TEST(SolverTest, NamesTheBlockThatFitsNowhere) {
  PlacementProblem p = TwoWorkers(100_KiB);  // the embedding alone is 125 KiB
  const auto result = *Solve(p);
  ASSERT_TRUE(result.infeasible.has_value());
  EXPECT_EQ(result.infeasible->smallest_set, std::vector<std::string>{"embed"});
  EXPECT_NE(RenderInfeasible(*result.infeasible).find("embed"), std::string::npos);
}

TEST(PlanValidatorTest, CatchesEveryKindOfDamage) {
  const PlacementProblem p = TwoWorkers(Bytes(TwoWorkers(Bytes(0)).model.weight_bytes().count() * 3 / 4));
  const PlacementPlan good = *Solve(p)->plan;
  ASSERT_TRUE(ValidatePlan(p, good).ok());
  auto damaged = [&](auto change) {
    PlacementPlan plan = good;
    change(plan);
    return ValidatePlan(p, plan).ok();
  };
  EXPECT_FALSE(damaged([](auto& x) { x.ledger[0].bytes -= 1_B; }));
  EXPECT_FALSE(damaged([](auto& x) { x.ledger.pop_back(); }));
  EXPECT_FALSE(damaged([](auto& x) { ++x.stages[0].end_block; }));
  EXPECT_FALSE(damaged([](auto& x) { x.stages[1].worker = x.stages[0].worker; }));
  EXPECT_FALSE(damaged([](auto& x) { x.stages[1].device = DeviceId("gpu9"); }));
  EXPECT_FALSE(damaged([](auto& x) { x.blocks.pop_back(); }));
  EXPECT_FALSE(damaged([](auto& x) { x.blocks[3].home = Home::kDevice; }));
  EXPECT_FALSE(damaged([](auto& x) { x.model_fingerprint = "0"; }));
  EXPECT_FALSE(damaged([](auto& x) { x.context *= 2; }));
  PlacementProblem smaller = p;
  smaller.cluster.hosts[0].devices[0].budget = 1_KiB;
  EXPECT_FALSE(ValidatePlan(smaller, good).ok());
}

TEST(PlanReportTest, ShowsStagesBudgetsAndBaselines) {
  const PlacementProblem p = TwoWorkers(Bytes(TwoWorkers(Bytes(0)).model.weight_bytes().count() * 3 / 4));
  const std::string text = RenderExplain(*Solve(p)->plan, &p);
  for (const char* part : {"a/cpu", "b/cpu", "head", "tokens/s", "limited by", "weights",
                           "fill by free memory", "does not fit"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  size_t line = 0, widest = 0;
  for (char c : text) {
    line = c == '\n' ? 0 : line + 1;
    widest = std::max(widest, line);
  }
  EXPECT_LE(widest, 100u) << text;
}

TEST(PlanReportTest, SaysHowFarASearchThatWasCutShortMayBeFromTheBest) {
  const PlacementPlan plan = *Solve(TwoWorkers(1_GiB))->plan;
  EXPECT_EQ(plan.predicted.search_gap, 0);
  EXPECT_EQ(RenderPredicted(plan).find("cut short"), std::string::npos);
  PlacementPlan cut = plan;
  cut.predicted.search_gap = 0.0321;
  EXPECT_NE(RenderPredicted(cut).find("cut short: a better placement saves 3.2%"),
            std::string::npos);
}

TEST(PinsTest, GlobsAndForms) {
  EXPECT_TRUE(GlobMatches("blk.*.ffn", "blk.12.ffn"));
  EXPECT_TRUE(GlobMatches("blk.?.ffn", "blk.1.ffn"));
  EXPECT_FALSE(GlobMatches("blk.?.ffn", "blk.12.ffn"));
  EXPECT_FALSE(GlobMatches("head", "embed"));
  EXPECT_TRUE(ParsePin("a=b").ok());
  EXPECT_FALSE(ParsePin("ab").ok());
}

}  // namespace
}  // namespace millrace
