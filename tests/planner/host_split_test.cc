#include "planner/host_split.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

constexpr HostRates kRates = {50e9, 50e9, 120e9, 100e9};

TEST(HostSplitTest, StreamsUntilTheCopiesAreJustHidden) {
  // 15 GB, device 10 ms and none of it saved by the CPU: (15 - x) / 100 + 0.01 = x / 50, x = 16/3.
  FluidPass pass;
  pass.device_seconds = 0.01;
  pass.ff_bytes = 15e9;
  const HostSplit split = BestHostSplit(pass, kRates, RoutePolicy::kAuto);
  EXPECT_NEAR(split.stream_share, 16.0 / 45, 1e-6);
  EXPECT_NEAR(split.seconds, 16.0 / 3 / 50, 1e-6);
}

TEST(HostSplitTest, HopsAndProductsMoveWorkToTheLink) {
  FluidPass pass;
  pass.device_seconds = 0.01;
  pass.ff_bytes = 15e9;
  const double plain = BestHostSplit(pass, kRates, RoutePolicy::kAuto).stream_share;
  pass.ff_hop_seconds = 0.005;
  const double hops = BestHostSplit(pass, kRates, RoutePolicy::kAuto).stream_share;
  EXPECT_GT(hops, plain);
  pass.ff_compute_seconds = 1;  // a large pass: 15 GB/s of weights
  const double products = BestHostSplit(pass, kRates, RoutePolicy::kAuto).stream_share;
  EXPECT_GT(products, hops);
  pass.ff_compute_seconds = 1000;
  EXPECT_GT(BestHostSplit(pass, kRates, RoutePolicy::kAuto).stream_share, 0.999);
}

TEST(HostSplitTest, ASlowLinkLeavesAllToTheCpu) {
  FluidPass pass;
  pass.device_seconds = 0.001;
  pass.ff_bytes = 10e9;
  const HostRates slow = {1e9, 1e9, 120e9, 118e9};
  // Even so some streaming would hide; with a tiny share the CPU falls to 118, so compare: all CPU
  // 1 + 83.3 ms, the crossing 1 + 84 ms.
  const HostSplit split = BestHostSplit(pass, slow, RoutePolicy::kAuto);
  EXPECT_NEAR(split.seconds, 0.001 + 10.0 / 120, 1e-3);
  const HostRates dead = {1e6, 1e6, 120e9, 119e9};
  EXPECT_EQ(BestHostSplit(pass, dead, RoutePolicy::kAuto).stream_share, 0);
}

TEST(HostSplitTest, ASlowCpuLeavesAllToTheLink) {
  FluidPass pass;
  pass.device_seconds = 0.001;
  pass.ff_bytes = 10e9;
  pass.ff_compute_seconds = 1e4;
  const HostSplit split = BestHostSplit(pass, kRates, RoutePolicy::kStream);
  EXPECT_EQ(split.stream_share, 1);
  EXPECT_NEAR(split.seconds, 0.2, 1e-9);
}

TEST(HostSplitTest, ForcedPoliciesAreTimedAsTheyAre) {
  FluidPass pass;
  pass.device_seconds = 0.05;
  pass.ff_bytes = 12e9;
  pass.ff_device_seconds = 0.02;
  pass.ff_hop_seconds = 0.001;
  const HostSplit cpu = BestHostSplit(pass, kRates, RoutePolicy::kCpu);
  EXPECT_EQ(cpu.stream_share, 0);
  EXPECT_NEAR(cpu.seconds, 0.03 + 0.1 + 0.001, 1e-9);
  const HostSplit stream = BestHostSplit(pass, kRates, RoutePolicy::kStream);
  EXPECT_NEAR(stream.seconds, 0.24, 1e-9);
  EXPECT_LE(BestHostSplit(pass, kRates, RoutePolicy::kAuto).seconds, 0.131);
}

TEST(HostSplitTest, MoreOffloadedIsNeverFaster) {
  double before = 0;
  for (double gb = 0; gb < 40; gb += 0.25) {
    FluidPass pass;
    pass.device_seconds = 0.02;
    pass.ff_bytes = gb * 1e9;
    pass.ff_device_seconds = 0.0005 * gb;
    pass.ff_hop_seconds = 0.0001 * gb;
    const double seconds = BestHostSplit(pass, kRates, RoutePolicy::kAuto).seconds;
    EXPECT_GE(seconds, before - 1e-12) << gb;
    before = seconds;
  }
}

}  // namespace
}  // namespace millrace
