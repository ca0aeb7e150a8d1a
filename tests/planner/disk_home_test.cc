// Plans of models that fit neither the GPU nor host memory: what stays on disk, and what it costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "planner/plan_report.h"
#include "planner/plan_validator.h"
#include "planner/solver.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

PlacementProblem Problem(Bytes host, double disk_gb) {
  PlacementProblem p = Llama70BOn(kReferenceMachine, 12_GiB);
  p.cluster.hosts[0].budget = host;
  p.cluster.hosts[0].disk_bandwidth = Bandwidth::GBPerSecond(disk_gb);
  return p;
}

int CountAt(const PlacementPlan& plan, Home home) {
  return static_cast<int>(std::count_if(plan.blocks.begin(), plan.blocks.end(),
                                        [&](const BlockPlacement& b) { return b.home == home; }));
}

Bytes BytesAt(const PlacementPlan& plan, Home home) {
  Bytes sum;
  for (const BlockPlacement& b : plan.blocks) sum += b.home == home ? b.weights : Bytes(0);
  return sum;
}

TEST(DiskHomeTest, OnlyWhereNothingElseFits) {
  const auto without = Solve(Problem(16_GiB, 0));
  ASSERT_TRUE(without.ok());
  EXPECT_TRUE(without->infeasible.has_value()) << "the host's memory is too small";
  EXPECT_EQ(CountAt(Planned(Problem(64_GiB, 2)), Home::kDisk), 0) << "it fits";
  const PlacementPlan plan = Planned(Problem(16_GiB, 2));
  EXPECT_GT(CountAt(plan, Home::kDisk), 0);
  EXPECT_GT(CountAt(plan, Home::kHost), 0);
  EXPECT_EQ(plan.blocks[0].home, Home::kHost) << "the table is looked up in RAM";
  for (const BlockPlacement& b : plan.blocks) {
    EXPECT_TRUE(b.home != Home::kDisk || b.host_route_max_tokens == 0) << b.name;
  }
  EXPECT_THAT(RenderPlanTable(plan), HasSubstr("read from disk for every pass"));
  EXPECT_THAT(plan.binding_constraint, HasSubstr("the disk"));
}

TEST(DiskHomeTest, HostMemoryIsUsedUpBeforeTheDisk) {
  const PlacementPlan plan = Planned(Problem(16_GiB, 2));
  Bytes used, largest;
  for (const LedgerTotal& t : plan.totals) used += t.memory == "host" ? t.used : Bytes(0);
  for (const BlockPlacement& b : plan.blocks) largest = std::max(largest, b.weights);
  EXPECT_LE(used, 16_GiB);
  // Room for another block would have been used; the search counts the CPU's buffers at their most.
  EXPECT_GT(used + largest + 2_GiB, 16_GiB);
}

TEST(DiskHomeTest, DecodeGoesByTheDisk) {
  const PlacementPlan plan = Planned(Problem(16_GiB, 2));
  const double least =
      absl::ToDoubleSeconds(BytesAt(plan, Home::kDisk) / Bandwidth::GBPerSecond(2));
  const double token = absl::ToDoubleSeconds(plan.predicted.time_per_token);
  EXPECT_GE(token, 0.999 * least);
  EXPECT_LE(token, 1.3 * least + 0.5) << "copies from memory and the GPU's work are beside it";
}

TEST(DiskHomeTest, MoreMemoryAndFasterDisksAreNeverSlower) {
  double before = 1e300;
  int on_disk = 1000;
  for (int gib = 6; gib <= 40; gib += 2) {
    const PlacementPlan plan = Planned(Problem(Bytes(gib * 1_GiB), 1.5));
    const double token = absl::ToDoubleSeconds(plan.predicted.time_per_token);
    EXPECT_LE(token, before * 1.001) << gib << " GiB";
    EXPECT_LE(CountAt(plan, Home::kDisk), on_disk) << gib << " GiB";
    before = token;
    on_disk = CountAt(plan, Home::kDisk);
  }
  EXPECT_EQ(on_disk, 0);
  before = 1e300;
  for (double gb : {0.2, 0.5, 1.0, 3.0, 7.0, 14.0, 60.0}) {
    const double token =
        absl::ToDoubleSeconds(Planned(Problem(12_GiB, gb)).predicted.time_per_token);
    EXPECT_LE(token, before * 1.001) << gb << " GB/s";
    before = token;
  }
}

TEST(DiskHomeTest, PinsToTheHostAreKept) {
  PlacementProblem p = Problem(20_GiB, 2);
  p.pins = {{"blk.79.ffn", "host"}, {"blk.40.attn", "host"}};
  const PlacementPlan plan = Planned(p);
  EXPECT_GT(CountAt(plan, Home::kDisk), 0);
  for (const BlockPlacement& b : plan.blocks) {
    const bool pinned = b.name == "blk.79.ffn" || b.name == "blk.40.attn";
    EXPECT_TRUE(!pinned || b.home == Home::kHost) << b.name;
  }
}

TEST(DiskHomeTest, TheCpuRouteAloneNeedsMemory) {
  PlacementProblem p = Problem(16_GiB, 2);
  p.routes = RoutePolicy::kCpu;
  const auto result = Solve(p);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->infeasible.has_value());
}

TEST(DiskHomeTest, TheValidatorFindsWhatIsWrong) {
  const PlacementProblem p = Problem(16_GiB, 2);
  const PlacementPlan good = Planned(p);
  int disk = -1, host = -1;
  for (const BlockPlacement& b : good.blocks) {
    if (b.home == Home::kDisk) disk = b.block;
    if (b.home == Home::kHost && b.block > 0) host = b.block;
  }
  ASSERT_GE(disk, 0);
  ASSERT_GE(host, 0);
  const auto refusal = [&](const PlacementProblem& problem, auto change) {
    PlacementPlan plan = good;
    change(plan);
    return std::string(ValidatePlan(problem, plan).message());
  };
  EXPECT_EQ(refusal(p, [](auto&) {}), "");
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[disk].home = Home::kHost; }), HasSubstr("ledger"));
  const auto to_disk = [&](PlacementPlan& x) {
    x.blocks[host].home = Home::kDisk;
    x.blocks[host].host_route_max_tokens = 0;
  };
  EXPECT_THAT(refusal(p, to_disk), HasSubstr("w/host"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[0].home = Home::kDisk; }), HasSubstr("table"));
  EXPECT_THAT(refusal(p, [&](auto& x) { x.blocks[disk].host_route_max_tokens = 1; }),
              HasSubstr("host route"));
  PlacementProblem unknown = p;
  unknown.cluster.hosts[0].disk_bandwidth = Bandwidth();
  EXPECT_THAT(refusal(unknown, [](auto&) {}), HasSubstr("speed is not known"));
}

// Solve validates every plan it gives.
TEST(DiskHomeTest, RandomBudgets) {
  std::mt19937 rng(20261126);
  int with_disk = 0;
  for (int i = 0; i < 40; ++i) {
    PlacementProblem p = Problem(Bytes(static_cast<int64_t>(1 + rng() % 40) * 1_GiB),
                                 0.2 + static_cast<double>(rng() % 100) / 10);
    HostSpec& host = p.cluster.hosts[0];
    host.devices[0].budget = Bytes(static_cast<int64_t>(5 + rng() % 30) * 1_GiB);
    if (rng() % 2) {
      host.devices.push_back(host.devices[0]);
      host.devices[1].id = DeviceId("gpu1");
      host.devices[1].budget = Bytes(static_cast<int64_t>(5 + rng() % 30) * 1_GiB);
    }
    p.routes = static_cast<RoutePolicy>(rng() % 5);
    const auto result = Solve(p);
    ASSERT_TRUE(result.ok()) << "problem " << i << ": " << result.status();
    if (result->plan) with_disk += CountAt(*result->plan, Home::kDisk) > 0;
  }
  EXPECT_GT(with_disk, 5);
}

}  // namespace
}  // namespace millrace
