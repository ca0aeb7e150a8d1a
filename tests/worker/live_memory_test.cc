// Plans against what is free now, told by a test: what fits, what no longer does, and budgets cut
// to it.
#include "worker/live_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "worker/process_memory.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const WorkerId kHere("w0");

MemorySource Free(std::optional<Bytes> host, std::map<int, Bytes> gpus) {
  MemorySource source;
  source.host_available = [host] { return host; };
  source.gpu_free = [gpus = std::move(gpus)](int index) -> absl::StatusOr<Bytes> {
    const auto it = gpus.find(index);
    if (it == gpus.end()) return absl::InternalError("no such GPU");
    return it->second;
  };
  return source;
}

// 20 GiB on gpu0 and 1 GiB that CUDA takes there, 30 GiB of host memory; another worker's beside
// it.
PlacementPlan GpuPlan() {
  PlacementPlan plan;
  plan.ledger = {{kHere, "gpu0", Purpose::kWeights, 17_GiB},
                 {kHere, "gpu0", Purpose::kKvCache, 3_GiB},
                 {kHere, "gpu0", Purpose::kOverhead, 1_GiB},
                 {kHere, "host", Purpose::kWeights, 30_GiB},
                 {WorkerId("other"), "gpu0", Purpose::kWeights, 90_GiB},
                 {WorkerId("other"), "host", Purpose::kWeights, 90_GiB}};
  return plan;
}

HostSpec Host() {
  HostSpec host;
  host.worker = kHere;
  host.memory_total = 64_GiB;
  host.budget = 40_GiB;
  return host;
}

DeviceSpec Device(const std::string& id, DeviceKind kind, Bytes budget, Bytes overhead) {
  DeviceSpec d;
  d.id = DeviceId(id);
  d.kind = kind;
  d.memory_total = 64_GiB;
  d.budget = budget;
  d.overhead = overhead;
  return d;
}

TEST(LiveMemoryTest, WhatFitsToTheByteHasNoShortage) {
  EXPECT_TRUE(FindShortages(GpuPlan(), kHere, Free(30_GiB, {{0, 20_GiB}})).empty());
  EXPECT_TRUE(ShortageError({}, "ask").ok());
}

TEST(LiveMemoryTest, AByteTooLittleOnAGpuIsAShortageAndTheContextIsNotCountedAgain) {
  const auto shortages = FindShortages(GpuPlan(), kHere, Free(30_GiB, {{0, 20_GiB - Bytes(1)}}));
  ASSERT_EQ(shortages.size(), 1u);
  EXPECT_EQ(shortages[0].memory, "gpu0");
  EXPECT_EQ(shortages[0].takes, 20_GiB);  // not 21
  EXPECT_EQ(shortages[0].free, 20_GiB - Bytes(1));
}

TEST(LiveMemoryTest, ARefusalNamesMemoryDifferenceAndRemedy) {
  const absl::Status status =
      ShortageError(FindShortages(GpuPlan(), kHere, Free(10_GiB, {{0, 15_GiB}})), "or do that");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("gpu0: the plan takes 20.0 GiB, 15.0 GiB are free now (5.00 GiB less"),
            HasSubstr("host memory: the plan takes 30.0 GiB, 10.0 GiB are free now (20.0 GiB less"),
            HasSubstr("or do that")));
}

TEST(LiveMemoryTest, OfHostMemoryALittleMayBeMissing) {
  EXPECT_TRUE(FindShortages(GpuPlan(), kHere, Free(29_GiB + 800_MiB, {{0, 20_GiB}})).empty());
  EXPECT_FALSE(FindShortages(GpuPlan(), kHere, Free(29_GiB, {{0, 20_GiB}})).empty());
}

TEST(LiveMemoryTest, LogicalDevicesOnOneGpuCountTogetherAndCpusWithTheHost) {
  PlacementPlan plan;
  plan.ledger = {{kHere, "gpu1", Purpose::kWeights, 8_GiB},
                 {kHere, "gpu1#1", Purpose::kWeights, 8_GiB},
                 {kHere, "cpu", Purpose::kWeights, 4_GiB},
                 {kHere, "cpu", Purpose::kOverhead, 9_GiB},
                 {kHere, "cpu#1", Purpose::kKvCache, 4_GiB}};
  EXPECT_TRUE(FindShortages(plan, kHere, Free(8_GiB, {{1, 16_GiB}})).empty());
  const auto shortages = FindShortages(plan, kHere, Free(7_GiB, {{1, 15_GiB}}));
  ASSERT_EQ(shortages.size(), 2u);
  EXPECT_EQ(shortages[0].memory, "gpu1");
  EXPECT_EQ(shortages[0].takes, 16_GiB);
  EXPECT_EQ(shortages[1].memory, "host memory");
  EXPECT_EQ(shortages[1].takes, 8_GiB);
}

TEST(LiveMemoryTest, WhatCannotBeAskedIsLeftToTheLoading) {
  EXPECT_TRUE(FindShortages(GpuPlan(), kHere, Free(std::nullopt, {})).empty());
}

TEST(LiveMemoryTest, BudgetsAreCutToWhatIsFreeInProportionAndNeverRaised) {
  HostSpec host = Host();
  host.devices = {Device("gpu0", DeviceKind::kGpu, 11_GiB, 1_GiB),
                  Device("gpu0#1", DeviceKind::kGpu, 30_GiB, 0_GiB),
                  Device("gpu1", DeviceKind::kGpu, 20_GiB, 1_GiB)};
  const HostSpec now = BudgetsNow(host, Free(10_GiB, {{0, 20_GiB}, {1, 50_GiB}}));
  EXPECT_EQ(now.devices[0].budget, 6_GiB);   // its overhead, and half of 10 GiB
  EXPECT_EQ(now.devices[1].budget, 15_GiB);  // half of 30 GiB
  EXPECT_EQ(now.devices[2].budget, 20_GiB);
  EXPECT_EQ(now.budget, 10_GiB);
}

TEST(LiveMemoryTest, ACpusOwnMemoryIsNotTakenFromItTwice) {
  HostSpec host = Host();
  host.devices = {Device("cpu", DeviceKind::kCpu, 40_GiB, 2_GiB)};
  const HostSpec now = BudgetsNow(host, Free(10_GiB, {}));
  EXPECT_EQ(now.budget, 12_GiB);
  EXPECT_EQ(now.devices[0].budget, 12_GiB);
  EXPECT_EQ(BudgetsNow(host, Free(39_GiB, {})).budget, 40_GiB);
}

TEST(LiveMemoryTest, ThisMachineTellsItsHostMemory) {
  const std::optional<Bytes> available = ThisMachine().host_available();
  ASSERT_TRUE(available.has_value());
  EXPECT_GT(*available, Bytes(0));
  EXPECT_LE(*available, MeasureHostMemory().total);
}

}  // namespace
}  // namespace millrace
