// Other machines: what changes, what two plans say side by side, and what a little more buys.
#include "planner/what_if.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/home_counts.h"
#include "planner/host_rates.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ClusterSpec Desktop() { return Llama70BOn(kDesktop3090, 23_GiB).cluster; }

// One answer at a pass size that stays.
PlanOn PlansOf(const PlacementProblem& problem) {
  return [problem](const ClusterSpec& cluster) {
    PlacementProblem other = problem;
    other.cluster = cluster;
    return FindPlan(other);
  };
}

TEST(WhatIfTest, BudgetsAndRatesChangeWhatTheyName) {
  MachineChange change;
  change.budgets = {{"gpu", 12_GiB}, {"gpu0", 32_GiB}, {"host", 256_GiB}};
  change.link = Bandwidth::GBPerSecond(13);
  change.disk = Bandwidth::GBPerSecond(3);
  const auto cluster = Changed(Desktop(), change);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  const HostSpec& host = cluster->hosts.front();
  EXPECT_EQ(host.devices[0].budget, 32_GiB);
  EXPECT_EQ(host.devices[0].memory_total, 32_GiB);
  EXPECT_EQ(host.budget, 256_GiB);
  EXPECT_EQ(host.memory_total, 256_GiB);
  EXPECT_EQ(host.devices[0].h2d_bandwidth, Bandwidth::GBPerSecond(13));
  EXPECT_EQ(host.disk_bandwidth, Bandwidth::GBPerSecond(3));
}

TEST(WhatIfTest, AMemoryThatIsNotThereIsNamed) {
  MachineChange change;
  change.budgets = {{"gpu7", 12_GiB}};
  const auto refused = Changed(Desktop(), change);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("'gpu7' there; there is gpu0, host"));
}

TEST(WhatIfTest, ACardMoreStandsBesideTheOthersOnALinkNoFaster) {
  MachineChange change;
  change.more_gpus = {FindGpuProfile("rtx-5090")};
  const auto cluster = Changed(Desktop(), change);
  ASSERT_TRUE(cluster.ok());
  const auto& devices = cluster->hosts.front().devices;
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_EQ(devices[1].id, DeviceId("gpu1"));
  EXPECT_EQ(devices[1].h2d_bandwidth, devices[0].h2d_bandwidth);
}

TEST(WhatIfTest, FasterMemoryMakesReadingFasterAndNotArithmetic) {
  ClusterSpec cluster = Desktop();
  HostSpec& host = cluster.hosts.front();
  host.cpu_rates = EstimatedCpuRates(host.dram_bandwidth, 1e12);
  MachineChange change;
  change.dram = host.dram_bandwidth * 2;
  const auto faster = Changed(cluster, change);
  ASSERT_TRUE(faster.ok());
  const std::vector<CpuRate>& now = host.cpu_rates;
  const std::vector<CpuRate>& then = faster->hosts.front().cpu_rates;
  EXPECT_NEAR(CpuSecondsPerByte(then, 1), CpuSecondsPerByte(now, 1) / 2, 1e-15);
  EXPECT_NEAR(CpuSecondsPerByte(now, 9) - CpuSecondsPerByte(now, 1),
              CpuSecondsPerByte(then, 9) - CpuSecondsPerByte(then, 1), 1e-15);
}

TEST(WhatIfTest, ALittleMoreOfEachIsPlannedAnew) {
  const PlacementProblem problem = Llama70BOn(kDesktop3090, 23_GiB, 1, 512);
  const PlacementPlan plan = Planned(problem);
  const auto gains = GainsOfMore(problem.cluster, plan, PlansOf(problem));
  ASSERT_TRUE(gains.ok()) << gains.status();
  const std::string text = RenderGains(*gains, plan.predicted);
  for (const char* what :
       {"+1 GiB of w/gpu0", "+1 GiB of w/host", "+10% HBM", "+10% links", "+10% DRAM"}) {
    EXPECT_THAT(text, HasSubstr(what));
  }
  EXPECT_THAT(text, Not(HasSubstr("disk")));
  for (const Gain& gain : *gains) {
    ASSERT_TRUE(gain.predicted.has_value()) << gain.change;
    // The search's formula is not the simulator: a faster link may be used 0.3% worse.
    EXPECT_GE(gain.predicted->decode_tokens_per_second,
              0.99 * plan.predicted.decode_tokens_per_second)
        << gain.change;
  }
  // Offloaded decode waits for the link and DRAM, not for the card's own memory.
  const auto rate = [&](size_t i) { return (*gains)[i].predicted->decode_tokens_per_second; };
  EXPECT_GT(rate(0), 1.02 * plan.predicted.decode_tokens_per_second);
  EXPECT_LT(rate(2), 1.01 * plan.predicted.decode_tokens_per_second);
}

TEST(WhatIfTest, SideBySideHasBothPlansAndWhyOneDoesNotFit) {
  PlacementProblem problem = Llama70BOn(kDesktop3090, 23_GiB, 1, 512);
  const auto as_is = Solve(problem);
  ASSERT_TRUE(as_is.ok());
  MachineChange change;
  change.budgets = {{"gpu0", 60_GiB}};
  problem.cluster = *Changed(problem.cluster, change);
  const auto larger = Solve(problem);
  ASSERT_TRUE(larger.ok());
  EXPECT_EQ(CountHomes(*larger->plan).streamed.blocks, 0);
  const std::string text = RenderSideBySide(*as_is, *larger);
  for (const char* what : {"1 sequence decodes", "first token of 256", "streamed to GPUs", "w/host",
                           "as it is: limited by", "what if: limited by HBM"}) {
    EXPECT_THAT(text, HasSubstr(what));
  }
  change.budgets = {{"gpu0", 4_GiB}, {"host", 4_GiB}};
  problem.cluster = *Changed(problem.cluster, change);
  const auto none = Solve(problem);
  ASSERT_TRUE(none.ok());
  EXPECT_THAT(RenderSideBySide(*as_is, *none), HasSubstr("what if: does not fit: "));
}

}  // namespace
}  // namespace millrace
