#include "planner/stage_search.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/time/clock.h"
#include "tests/planner/brute_force.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

// A problem and what the search reads of it.
struct Tabled {
  explicit Tabled(PlacementProblem asked)
      : problem(std::move(asked)),
        pins(*ResolvePins(problem)),
        memory(problem),
        cost(problem, memory),
        table(problem, memory, cost, pins) {}
  StageSearchResult Search(const StageSearchLimits& limits = {}) const {
    const auto result = SearchStages(problem.cluster, table, limits);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(StageSearchResult());
  }

  const PlacementProblem problem;
  const ResolvedPins pins;
  const MemoryBudget memory;
  const CostModel cost;
  const StageTable table;
};

TEST(StageSearchTest, EqualsBruteForceWithSeveralDevicesPerWorker) {
  std::mt19937 rng(21);
  int fits = 0, many_stages = 0;
  for (int round = 0; round < 600; ++round) {
    const Tabled t(RandomManyDevices(rng));
    const StageSearchResult result = t.Search();
    const double best = BruteForce(t.table).Run();
    ASSERT_EQ(result.stages.empty(), best < 0) << "round " << round;
    if (best < 0) continue;
    ++fits;
    many_stages += result.stages.size() > 2;
    EXPECT_NEAR(result.seconds, best, best * 1e-9) << "round " << round;
    EXPECT_NEAR(SearchSeconds(t.table, result.stages), best, best * 1e-9) << "round " << round;
    EXPECT_TRUE(result.proven()) << "round " << round;
  }
  EXPECT_GT(fits, 200);
  EXPECT_GT(many_stages, 50);
}

TEST(StageSearchTest, CutShortItGivesAValidPlacementAndAProvenBound) {
  std::mt19937 rng(22);
  int unproven = 0;
  for (int round = 0; round < 300; ++round) {
    const Tabled t(RandomManyDevices(rng));
    const double best = BruteForce(t.table).Run();
    const auto cut = SearchStages(t.problem.cluster, t.table,
                                  {.most_entries = 4, .most_sums = 600, .bound_rounds = 2});
    if (!cut.ok()) {  // neither found nor ruled out
      EXPECT_EQ(cut.status().code(), absl::StatusCode::kResourceExhausted);
      ++unproven;
      continue;
    }
    ASSERT_EQ(cut->stages.empty(), best < 0) << "round " << round;
    if (best < 0) continue;
    EXPECT_NEAR(SearchSeconds(t.table, cut->stages), cut->seconds, best * 1e-9);
    EXPECT_GE(cut->seconds, best * (1 - 1e-9));
    EXPECT_LE(cut->bound, best * (1 + 1e-9)) << "round " << round;
    if (cut->proven()) {
      EXPECT_NEAR(cut->seconds, best, best * 1e-8);
    }
    unproven += !cut->proven();
  }
  EXPECT_GT(unproven, 20);
}

// 70B over `workers` x `each` GPUs that all differ, which together hold `share` of the weights.
PlacementProblem UnequalGpus(int workers, int each, double share, unsigned seed) {
  std::mt19937 rng(seed);
  PlacementProblem p = Llama70BOn(kReferenceMachine, 80_GiB, 1, 512);
  const HostSpec base = p.cluster.hosts[0];
  p.cluster.hosts.clear();
  std::vector<double> sizes;
  double sum = 0;
  for (int i = 0; i < workers * each; ++i) sizes.push_back(0.5 + rng() % 1000 / 1000.0);
  for (double s : sizes) sum += s;
  for (int h = 0; h < workers; ++h) {
    HostSpec host = base;
    host.worker = WorkerId("w" + std::to_string(h));
    host.budget = Bytes(base.budget.count() / workers);
    host.devices.clear();
    for (int d = 0; d < each; ++d) {
      DeviceSpec gpu = base.devices[0];
      gpu.id = DeviceId("gpu" + std::to_string(d));
      gpu.budget = gpu.overhead + 2300_MiB +
                   Bytes(static_cast<int64_t>(42.5e9 * share * sizes[h * each + d] / sum));
      gpu.memory_bandwidth = Bandwidth::GBPerSecond(300 + rng() % 3000);
      gpu.h2d_bandwidth = Bandwidth::GBPerSecond(8 + rng() % 45);
      host.devices.push_back(gpu);
    }
    p.cluster.hosts.push_back(host);
  }
  return p;
}

// Bounds for an idle core are a second and five; here four times that, for machines that are
// shared.
void ExpectProvenWithin(int workers, int each, absl::Duration limit) {
  for (double share : {1.0, 1.1, 1.5, 4.0}) {
    const PlacementProblem problem = UnequalGpus(workers, each, share, 1);
    const absl::Time begin = absl::Now();
    const Tabled t(problem);
    const StageSearchResult result = t.Search();
    EXPECT_LT(absl::Now() - begin, limit) << share;
    ASSERT_FALSE(result.stages.empty());
    EXPECT_TRUE(result.proven()) << share;
    EXPECT_NEAR(SearchSeconds(t.table, result.stages), result.seconds, result.seconds * 1e-9);
  }
}

TEST(StageSearchTest, SixteenUnequalGpusOfOneWorkerInASecond) {
  ExpectProvenWithin(1, 16, absl::Seconds(4));
}

TEST(StageSearchTest, SixteenUnequalWorkersInFiveSeconds) {
  ExpectProvenWithin(16, 1, absl::Seconds(20));
}

TEST(StageSearchTest, ThatNothingFitsIsProvenWithoutTryingAllSets) {
  PlacementProblem p = UnequalGpus(1, 16, 0.6, 1);
  p.cluster.hosts[0].budget = 1_GiB;  // nor is there room beside them
  const Tabled t(p);
  const StageSearchResult result = t.Search();
  EXPECT_TRUE(result.stages.empty());
  EXPECT_LT(result.entries, 10'000);
}

TEST(StageSearchTest, RefusesMoreKindsThanItCanTellApart) {
  std::mt19937 rng(3);
  PlacementProblem p = BaseProblem(TestModel(2, false, rng, false));
  for (int i = 0; i < 130; ++i) {
    p.cluster.hosts.push_back(CpuHost("w" + std::to_string(i), 1_MiB + Bytes(i), 20 + i));
  }
  const Tabled t(p);
  const auto result = SearchStages(t.problem.cluster, t.table);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(result.status().message().find("130 devices"), absl::string_view::npos)
      << result.status();
}

}  // namespace
}  // namespace millrace
