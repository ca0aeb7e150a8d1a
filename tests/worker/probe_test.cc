#include "worker/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(ProbeTest, MeasuresThisMachineInUnderTwoSeconds) {
  ProbeOptions options;
  options.worker = WorkerId("w0");
  options.threads = 1;
  const absl::Time start = absl::Now();
  const absl::StatusOr<HostSpec> host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_GT(host->memory_total, 64_MiB);
  EXPECT_LE(host->budget, host->memory_total);
  EXPECT_GT(host->dram_bandwidth.gb_per_second(), 0.5);
  EXPECT_LT(host->dram_bandwidth.gb_per_second(), 2000);
  ASSERT_EQ(host->devices.size(), 1u);
  EXPECT_EQ(host->devices[0].id, DeviceId("cpu"));
  EXPECT_GT(host->devices[0].prefill_flops, 1e8);
  EXPECT_GT(host->devices[0].overhead, 1_MiB);
}

TEST(ProbeTest, OneProcessIsCountedOnce) {
  ProbeOptions options;
  options.devices = *ParseDevices("cpu:64MiB,cpu:32MiB");
  const absl::StatusOr<HostSpec> host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  ASSERT_EQ(host->devices.size(), 2u);
  EXPECT_GT(host->devices[0].overhead, Bytes(0));
  EXPECT_EQ(host->devices[1].overhead, Bytes(0));
  EXPECT_EQ(host->devices[1].budget, 32_MiB);
}

TEST(ProbeTest, BudgetsThatCannotBeAreRefused) {
  ProbeOptions options;
  options.host_memory = 1_MiB;
  EXPECT_THAT(std::string(ProbeHost(options).status().message()),
              HasSubstr("this process takes by itself"));
  options.host_memory = MeasureHostMemory().total + 1_GiB;
  EXPECT_THAT(std::string(ProbeHost(options).status().message()), HasSubstr("--host-memory"));
  options.host_memory = std::nullopt;
  options.devices = *ParseDevices("gpu0");
  EXPECT_EQ(ProbeHost(options).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace millrace
