// Rates of the CPU by hand.
#include "planner/host_rates.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

CpuRate Rate(int tokens, double gb_per_second) {
  return {tokens, Bandwidth::GBPerSecond(gb_per_second)};
}

TEST(CpuSecondsPerByteTest, IsLinearBetweenPointsAndGoesOnBeyondThem) {
  const std::vector<CpuRate> rates = {Rate(2, 100), Rate(4, 50), Rate(8, 20)};
  const auto ns = [&](int tokens) { return 1e9 * CpuSecondsPerByte(rates, tokens); };
  EXPECT_DOUBLE_EQ(ns(1), 0.01) << "below the first point";
  EXPECT_DOUBLE_EQ(ns(2), 0.01);
  EXPECT_DOUBLE_EQ(ns(3), 0.015);
  EXPECT_DOUBLE_EQ(ns(4), 0.02);
  EXPECT_DOUBLE_EQ(ns(5), 0.0275);
  EXPECT_DOUBLE_EQ(ns(6), 0.035);
  EXPECT_DOUBLE_EQ(ns(8), 0.05);
  EXPECT_DOUBLE_EQ(ns(12), 0.08);
  EXPECT_DOUBLE_EQ(ns(512), 0.05 + 504 * 0.0075);
}

TEST(CpuSecondsPerByteTest, FewOrOddPoints) {
  EXPECT_DOUBLE_EQ(CpuSecondsPerByte({Rate(1, 10)}, 512), 1e-10);
  // Faster at more rows: as measured between the points, not beyond.
  const std::vector<CpuRate> odd = {Rate(1, 10), Rate(2, 20)};
  EXPECT_DOUBLE_EQ(CpuSecondsPerByte(odd, 2), 0.5e-10);
  EXPECT_DOUBLE_EQ(CpuSecondsPerByte(odd, 100), 0.5e-10);
  EXPECT_DOUBLE_EQ(CpuSecondsPerByte({CpuRate()}, 1), 1e-6) << "a rate of zero is 1 MB/s";
}

TEST(CpuProductSecondsTest, OneRowGoesByBytesAndMoreByValues) {
  HostSpec host;
  host.cpu_rates = {Rate(1, 100), Rate(5, 20)};
  // 1e9 values in Q4_K are 0.5625 GB: the table's time.
  EXPECT_NEAR(CpuProductSeconds(host, 0.5625e9, 1e9, 1, LinkLoad::kIdle), 5.625e-3, 1e-12);
  EXPECT_NEAR(CpuProductSeconds(host, 0.5625e9, 1e9, 5, LinkLoad::kIdle), 28.125e-3, 1e-12);
  // In F16 2 GB: 20 ms to read, and the same 22.5 ms for four more rows.
  EXPECT_NEAR(CpuProductSeconds(host, 2e9, 1e9, 1, LinkLoad::kIdle), 20e-3, 1e-12);
  EXPECT_NEAR(CpuProductSeconds(host, 2e9, 1e9, 5, LinkLoad::kIdle), 42.5e-3, 1e-12);
}

TEST(CpuProductSecondsTest, SeveralRowsBesideCopiesTakeWhatWasMeasuredThere) {
  HostSpec host;
  host.cpu_rates = {Rate(1, 100), Rate(5, 20)};
  const double q4k = 0.5625e9;
  EXPECT_NEAR(CpuProductSeconds(host, q4k, 1e9, 5, LinkLoad::kCopies), 28.125e-3, 1e-12)
      << "never measured: as without copies";
  host.cpu_rates[0].beside_copies = Bandwidth::GBPerSecond(80);
  host.cpu_rates[1].beside_copies = Bandwidth::GBPerSecond(15);
  EXPECT_NEAR(CpuProductSeconds(host, q4k, 1e9, 5, LinkLoad::kIdle), 28.125e-3, 1e-12);
  EXPECT_NEAR(CpuProductSeconds(host, q4k, 1e9, 5, LinkLoad::kCopies), 37.5e-3, 1e-12);
  // What one row shares with the copies is memory, which the caller counts.
  EXPECT_NEAR(CpuProductSeconds(host, q4k, 1e9, 1, LinkLoad::kCopies), 5.625e-3, 1e-12);
}

TEST(CpuProductSecondsTest, WithoutATableFlopsStandIn) {
  HostSpec host;
  host.cpu_flops = 1e12;
  EXPECT_EQ(CpuProductSeconds(host, 1e9, 2e9, 1, LinkLoad::kIdle), 0);
  EXPECT_DOUBLE_EQ(CpuProductSeconds(host, 1e9, 2e9, 8, LinkLoad::kIdle), 2 * 2e9 * 8 / 1e12);
  host.cpu_flops = 0;
  host.threads = 4;
  EXPECT_DOUBLE_EQ(CpuFlops(host), 4 * kDefaultFlopsPerThread);
}

TEST(RatesBesideTest, MemoryGivesAtLeastWhatProductsRead) {
  HostSpec host;
  host.dram_bandwidth = Bandwidth::GBPerSecond(100);
  DeviceSpec gpu;
  gpu.h2d_bandwidth = Bandwidth::GBPerSecond(52);
  EXPECT_DOUBLE_EQ(RatesBeside(host, gpu).cpu_alone, 100e9);
  host.cpu_rates = {Rate(1, 116)};
  EXPECT_DOUBLE_EQ(RatesBeside(host, gpu).cpu_alone, 116e9);
  EXPECT_NEAR(RatesBeside(host, gpu).cpu_shared, 116e9 * kDramTogether - 52e9 * kLinkShared, 1);
  host.cpu_rates = {Rate(1, 80)};
  EXPECT_DOUBLE_EQ(RatesBeside(host, gpu).cpu_alone, 100e9);
}

TEST(SameCpuTest, ComparesTables) {
  HostSpec a, b;
  EXPECT_TRUE(SameCpu(a, b));
  a.cpu_rates = {Rate(1, 10)};
  EXPECT_FALSE(SameCpu(a, b));
  b.cpu_rates = {Rate(1, 10)};
  EXPECT_TRUE(SameCpu(a, b));
  b.cpu_rates[0].tokens = 2;
  EXPECT_FALSE(SameCpu(a, b));
}

}  // namespace
}  // namespace millrace
