// The table of hardware: every profile is usable, says where it comes from, and agrees with what
// was measured where something was.
#include "planner/hardware_profiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "planner/host_rates.h"

namespace millrace {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(HardwareProfilesTest, EveryOneIsUsableAndSaysWhereItComesFrom) {
  std::set<absl::string_view> names;
  for (const GpuProfile& p : GpuProfiles()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    EXPECT_THAT(std::string(p.source), AnyOf(StartsWith("estimate: "), StartsWith("measured ")));
    const DeviceSpec gpu = DescribedGpu(p, 1, {5, 16});
    EXPECT_EQ(gpu.id, DeviceId("gpu1"));
    EXPECT_GT(gpu.budget, gpu.overhead + 16_GiB) << p.name;
    EXPECT_LT(gpu.budget, gpu.memory_total);
    EXPECT_GT(gpu.prefill_flops, 1e13) << p.name;
    EXPECT_GT(gpu.memory_bandwidth, Bandwidth::GBPerSecond(500)) << p.name;
  }
  for (const HostProfile& p : HostProfiles()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    EXPECT_THAT(std::string(p.source), AnyOf(StartsWith("estimate: "), StartsWith("measured ")));
    const HostSpec host = DescribedHost(p, 64_GiB);
    EXPECT_EQ(host.budget, 60_GiB);
    ASSERT_FALSE(host.cpu_rates.empty());
    for (size_t i = 1; i < host.cpu_rates.size(); ++i) {
      EXPECT_LT(host.cpu_rates[i].weights, host.cpu_rates[i - 1].weights) << p.name;
    }
    EXPECT_LT(host.cpu_rates.front().weights, host.dram_bandwidth) << p.name;
  }
  for (const DiskProfile& p : DiskProfiles()) {
    EXPECT_TRUE(names.insert(p.name).second) << p.name;
    EXPECT_THAT(std::string(p.source), StartsWith("estimate: "));
  }
}

TEST(HardwareProfilesTest, NamesInAnyCaseFindTheirProfile) {
  ASSERT_NE(FindGpuProfile("RTX-3090"), nullptr);
  EXPECT_EQ(FindGpuProfile("rtx-3090")->title, "NVIDIA GeForce RTX 3090");
  EXPECT_EQ(FindGpuProfile("ddr5-desktop"), nullptr);
  EXPECT_NE(FindHostProfile("ddr5-desktop"), nullptr);
}

TEST(HardwareProfilesTest, LinksGoByGenerationAndLanes) {
  // 52 to 55 GB/s were measured at 5x16.
  EXPECT_NEAR(PcieBandwidth({5, 16}).gb_per_second(), 54, 1);
  EXPECT_NEAR(PcieBandwidth({4, 16}).gb_per_second(), 27, 0.5);
  EXPECT_NEAR(PcieBandwidth({3, 4}).gb_per_second(), 3.4, 0.1);
  EXPECT_EQ(PcieSlotName(*ParsePcieSlot("4x8")), "pcie4x8");
  for (const char* bad : {"", "4", "4x3", "2x16", "4x16x1", "ax8"}) {
    EXPECT_THAT(std::string(ParsePcieSlot(bad).status().message()), HasSubstr("GENERATIONxLANES"));
  }
}

TEST(HardwareProfilesTest, ACardIsNotFasterThanItsConnector) {
  const DeviceSpec old = DescribedGpu(*FindGpuProfile("rtx-3090"), 0, {5, 16});
  EXPECT_EQ(old.h2d_bandwidth, PcieBandwidth({4, 16}));
  const DeviceSpec narrow = DescribedGpu(*FindGpuProfile("rtx-3090"), 0, {3, 8});
  EXPECT_EQ(narrow.h2d_bandwidth, PcieBandwidth({3, 8}));
}

// The formula for hosts nobody measured, tried on the one that was: 108, 33 and 6.5 GB/s.
TEST(HardwareProfilesTest, EstimatedRatesOfTheReferenceAreNearTheMeasured) {
  const std::vector<CpuRate> rates = EstimatedCpuRates(Bandwidth::GBPerSecond(125), 5.9e12);
  const auto gb = [&](int tokens) { return 1e-9 / CpuSecondsPerByte(rates, tokens); };
  EXPECT_NEAR(gb(1), 108, 3);
  EXPECT_NEAR(gb(32), 33, 5);
  EXPECT_NEAR(gb(256), 6.5, 1);
}

TEST(HardwareProfilesTest, ASmallHostKeepsAnEighth) {
  EXPECT_EQ(DescribedHost(*FindHostProfile("ddr4-desktop"), 16_GiB).budget, 14_GiB);
}

}  // namespace
}  // namespace millrace
