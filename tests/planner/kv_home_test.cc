// Plans of contexts whose keys and values do not fit the GPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "planner/cost_model.h"
#include "planner/memory_budget.h"
#include "planner/pins.h"
#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/solver.h"
#include "planner/stage_options.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// 320 KiB a token: 10 GiB for 32,768.
PlacementProblem Problem(Bytes gpu, int context = 32768) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, gpu, 1, 64);
  p.context = context;
  return p;
}

int CachesOnHost(const PlacementPlan& plan) {
  return static_cast<int>(
      std::count_if(plan.blocks.begin(), plan.blocks.end(),
                    [](const BlockPlacement& b) { return b.kv_home == Home::kHost; }));
}

Bytes Ledger(const PlacementPlan& plan, const std::string& memory, Purpose purpose) {
  Bytes sum;
  for (const LedgerEntry& e : plan.ledger) {
    if (e.memory == memory && e.purpose == purpose) sum += e.bytes;
  }
  return sum;
}

TEST(KvHomeTest, CachesGoLastAndOnlyAsManyAsHaveTo) {
  EXPECT_EQ(CachesOnHost(Planned(Problem(16_GiB))), 0) << "weights go before caches";
  const PlacementPlan plan = Planned(Problem(8_GiB));
  const int caches = CachesOnHost(plan);
  EXPECT_GT(caches, 20);
  EXPECT_LT(caches, 60);
  for (const BlockPlacement& b : plan.blocks) {
    EXPECT_NE(b.home, Home::kDevice) << b.name << " could have made room for a cache";
  }
  const Bytes layer = 128_MiB;  // of 32,768 tokens
  EXPECT_EQ(Ledger(plan, "host", Purpose::kKvCache), layer * caches);
  EXPECT_EQ(Ledger(plan, "gpu0", Purpose::kKvCache), layer * (80 - caches));
  for (const LedgerTotal& t : plan.totals) {
    EXPECT_LE(t.used, t.budget);
    EXPECT_TRUE(t.memory != "gpu0" || t.used + layer + 2_MiB > t.budget) << "one more would fit";
  }
  EXPECT_THAT(RenderPlanTable(plan), HasSubstr("layers in RAM"));
}

TEST(KvHomeTest, MoreMemoryIsNeverSlowerAndKeepsMoreCaches) {
  double before = 1e300;
  int caches = 81;
  for (int mib = 4096; mib <= 18 * 1024; mib += 1024) {
    const PlacementPlan plan = Planned(Problem(Bytes(mib * 1_MiB)));
    const double token = absl::ToDoubleSeconds(plan.predicted.time_per_token);
    EXPECT_LE(token, before * 1.001) << mib << " MiB";
    EXPECT_LE(CachesOnHost(plan), caches) << mib << " MiB";
    before = token;
    caches = CachesOnHost(plan);
  }
  EXPECT_EQ(caches, 0);
}

TEST(KvHomeTest, ReadingThemCostsTheLinksTime) {
  const PlacementProblem p = Problem(8_GiB);
  const PlacementPlan plan = Planned(p);
  // Half full: this much crosses the link for every token, at no more than its rate.
  const Bytes read(Ledger(plan, "host", Purpose::kKvCache).count() / 2);
  const double least = absl::ToDoubleSeconds(read / p.cluster.hosts[0].devices[0].h2d_bandwidth);
  EXPECT_GT(absl::ToDoubleSeconds(plan.predicted.time_per_token), least);
}

TEST(KvHomeTest, TheSearchCountsThemBesidePinnedWeightsToo) {
  PlacementProblem p = Problem(10_GiB, 131072);
  p.pins = {{"blk.*.attn", "device"}};
  const auto pins = ResolvePins(p);
  ASSERT_TRUE(pins.ok()) << pins.status();
  const MemoryBudget memory(p);
  const CostModel cost(p, memory);
  const StageTable table(p, memory, cost, *pins);
  const StageChoice all = {0, 0, table.size()};
  const StageOffload offload = table.Offloads(all).front();
  double reads = 0;
  for (size_t b = 0; b < offload.kv_on_host.size(); ++b) {
    if (!offload.kv_on_host[b]) continue;
    EXPECT_FALSE(offload.host_home[b]) << "block " << b << " is pinned to the device";
    reads += cost.HostKvSeconds(table.Device(0), static_cast<int>(b), {});
  }
  ASSERT_GT(reads, 0.3);
  EXPECT_GT(table.Option(0, 0, table.size()).seconds, reads);
}

TEST(KvHomeTest, HostMemoryHasToHoldThem) {
  PlacementProblem p = Problem(8_GiB);
  p.cluster.hosts[0].budget = 42_GiB;  // the weights, not the caches
  auto result = Solve(p);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->infeasible.has_value());
  // Weights make room on disk.
  p.cluster.hosts[0].disk_bandwidth = Bandwidth::GBPerSecond(3);
  const PlacementPlan plan = Planned(p);
  EXPECT_GT(CachesOnHost(plan), 0);
  EXPECT_TRUE(std::any_of(plan.blocks.begin(), plan.blocks.end(),
                          [](const BlockPlacement& b) { return b.home == Home::kDisk; }));
}

TEST(KvHomeTest, TheValidatorFindsWhatIsWrong) {
  const PlacementProblem p = Problem(8_GiB);
  const PlacementPlan good = Planned(p);
  int with = -1, without = -1;
  for (const BlockPlacement& b : good.blocks) {
    if (b.name.find("attn") == std::string::npos) continue;
    (b.kv_home == Home::kHost ? with : without) = b.block;
  }
  ASSERT_GE(with, 0);
  ASSERT_GE(without, 0);
  const auto refusal = [&](auto change) {
    PlacementPlan plan = good;
    change(plan);
    return std::string(ValidatePlan(p, plan).message());
  };
  EXPECT_EQ(refusal([](auto&) {}), "");
  EXPECT_THAT(refusal([&](auto& x) { x.blocks[with].kv_home = Home::kDevice; }),
              HasSubstr("ledger"));
  EXPECT_THAT(refusal([&](auto& x) { x.blocks[without].kv_home = Home::kHost; }),
              HasSubstr("ledger"));
  EXPECT_THAT(refusal([](auto& x) { x.blocks[2].kv_home = Home::kHost; }), HasSubstr("no cache"));
  EXPECT_THAT(refusal([&](auto& x) { x.blocks[with].kv_home = Home::kDisk; }),
              HasSubstr("no cache"));
}

}  // namespace
}  // namespace millrace
