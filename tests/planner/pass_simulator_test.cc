// Exact times of small schedules.
#include "planner/pass_simulator.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

// Rates of 1 GB/s and more make bytes and seconds round: copies 10 GB/s, the CPU 20 alone, 12
// beside copies.
constexpr HostRates kRates = {10e9, 10e9, 20e9, 12e9};
const Bytes kGB(1'000'000'000);

PassStep OnGpu(double seconds) { return {seconds, Bytes(0), 0, Bytes(0), Bytes(0), 0}; }
PassStep OnCpu(Bytes bytes, double compute = 0, double hop = 0) {
  return {hop, bytes, compute, Bytes(0), Bytes(0), 0};
}
PassStep Streamed(double seconds, Bytes bytes) { return {seconds, Bytes(0), 0, bytes, bytes, 0}; }

TEST(HostRatesTest, CopiesAndCpuShareWhatMemoryGives) {
  // Reference machine: 54 * 0.93, and 113 * 1.32 less that.
  const HostRates server = ShareHostMemory(Bandwidth::GBPerSecond(54), Bandwidth::GBPerSecond(113));
  EXPECT_NEAR(server.copy_shared, 50.22e9, 1);
  EXPECT_NEAR(server.cpu_shared, 98.94e9, 1);
  // A link faster than half of the memory leaves the CPU its half.
  const HostRates slow = ShareHostMemory(Bandwidth::GBPerSecond(50), Bandwidth::GBPerSecond(20));
  EXPECT_NEAR(slow.copy_alone, 26.4e9, 1);
  EXPECT_NEAR(slow.copy_shared, 13.2e9, 1);
  EXPECT_NEAR(slow.cpu_shared, 13.2e9, 1);
  // More memory bandwidth than both can take.
  const HostRates wide = ShareHostMemory(Bandwidth::GBPerSecond(10), Bandwidth::GBPerSecond(100));
  EXPECT_DOUBLE_EQ(wide.copy_shared, 10e9);
  EXPECT_DOUBLE_EQ(wide.cpu_shared, 100e9);
  // Never measured: possible, and slow.
  EXPECT_GT(ShareHostMemory(Bandwidth(), Bandwidth()).copy_shared, 0);
}

TEST(PassSimulatorTest, ResidentAndCpuStepsFollowEachOther) {
  const PassTimes t = SimulatePasses({OnGpu(1), OnCpu(20 * kGB, 0, 0.25)}, kRates, Bytes(0), 2);
  ASSERT_EQ(t.ends.size(), 2u);
  EXPECT_DOUBLE_EQ(t.ends[0], 2.25);  // nothing is copied: the CPU reads at 20
  EXPECT_DOUBLE_EQ(t.ends[1], 4.5);
  EXPECT_DOUBLE_EQ(t.gpu, 2);
  EXPECT_DOUBLE_EQ(t.cpu, 2.5);
  EXPECT_DOUBLE_EQ(t.copy, 0);
}

// A hop, then the CPU's part beside two streamed slices, then the sum.
std::vector<PassStep> Split(Bytes on_cpu, double compute, Bytes first, Bytes second) {
  PassStep hop = OnCpu(on_cpu, compute, 0.25), join = OnGpu(0.25);
  hop.cpu_beside = true;
  join.joins = true;
  return {hop, Streamed(0.5, first), Streamed(0.5, second), join};
}

TEST(PassSimulatorTest, ASplitBlockTakesTheLongerOfItsParts) {
  // The CPU is done first: copies end at 1 and 2 s, the second op at 2.5.
  PassTimes t = SimulatePasses(Split(Bytes(0), 1, 10 * kGB, 10 * kGB), kRates, 20 * kGB, 1);
  EXPECT_DOUBLE_EQ(t.ends[0], 2.75);
  EXPECT_DOUBLE_EQ(t.cpu, 1);
  EXPECT_DOUBLE_EQ(t.gpu, 0.25 + 1 + 0.25);
  EXPECT_DOUBLE_EQ(t.copy, 2.75) << "on into the next pass, as far as the ring has room";
  // The CPU is last: from 0.25 on, at 12 beside copies and at 20 behind them.
  t = SimulatePasses(Split(20 * kGB, 4, 10 * kGB, 10 * kGB), kRates, 20 * kGB, 1);
  EXPECT_DOUBLE_EQ(t.ends[0], 0.25 + 4 + 0.25);
  EXPECT_DOUBLE_EQ(t.cpu, 4);
  // Two passes: what was copied ahead makes the second one the CPU's alone.
  t = SimulatePasses(Split(Bytes(0), 3, 10 * kGB, 10 * kGB), kRates, 20 * kGB, 2);
  EXPECT_DOUBLE_EQ(t.ends[0], 3.5);
  EXPECT_DOUBLE_EQ(t.ends[1], 7.0);
}

TEST(PassSimulatorTest, BothPartsOfASplitBlockShareTheHostsMemory) {
  // 12 GB at 12 a second beside the copy of one second, which no other follows.
  const std::vector<PassStep> steps = Split(24 * kGB, 0, 30 * kGB, 30 * kGB);
  const PassTimes t = SimulatePasses(steps, kRates, 30 * kGB, 1);
  // Copies without a pause until the ring's one group is in use from 3 to 3.5 s; meanwhile the CPU
  // has read from 0.25 s on at 12 GB/s and is done at 2.25.
  EXPECT_DOUBLE_EQ(t.cpu, 2);
  EXPECT_DOUBLE_EQ(t.ends[0], 3 + 0.5 + 3 + 0.5 + 0.25);
}

TEST(PassSimulatorTest, AComputeBoundCpuStepTakesItsProducts) {
  const PassTimes t = SimulatePasses({OnCpu(20 * kGB, 3)}, kRates, Bytes(0), 1);
  EXPECT_DOUBLE_EQ(t.ends[0], 3);
}

TEST(PassSimulatorTest, AGroupIsWaitedForAndTheNextCopyHasRoomWhenItsOpHasRun) {
  // A ring of one group: copy 1 s, op 0.5 s, the next copy begins only then.
  const PassTimes t = SimulatePasses({Streamed(0.5, 10 * kGB)}, kRates, 10 * kGB, 3);
  EXPECT_DOUBLE_EQ(t.ends[0], 1.5);
  EXPECT_DOUBLE_EQ(t.ends[1], 3.0);
  EXPECT_DOUBLE_EQ(t.ends[2], 4.5);
  EXPECT_DOUBLE_EQ(t.waited_for_copy, 3);
}

TEST(PassSimulatorTest, ADeeperRingHidesOpsBehindCopies) {
  // Two groups of room: the copies never stop.
  const PassTimes t = SimulatePasses({Streamed(0.5, 10 * kGB)}, kRates, 20 * kGB, 3);
  EXPECT_DOUBLE_EQ(t.ends[0], 1.5);
  EXPECT_DOUBLE_EQ(t.ends[1], 2.5);
  EXPECT_DOUBLE_EQ(t.ends[2], 3.5);
}

TEST(PassSimulatorTest, WhatComesFromDiskTakesItsTime) {
  // Copies run at 10; the second group's disk gives 2.5.
  PassStep from_disk = Streamed(0.5, 10 * kGB);
  from_disk.copy_limit = 2.5e9;
  const PassTimes t = SimulatePasses({Streamed(0.5, 10 * kGB), from_disk}, kRates, 20 * kGB, 2);
  EXPECT_DOUBLE_EQ(t.ends[0], 5.5);
  EXPECT_DOUBLE_EQ(t.ends[1], 10.5);
  // A disk that is faster than the link changes nothing.
  from_disk.copy_limit = 90e9;
  EXPECT_DOUBLE_EQ(
      SimulatePasses({Streamed(0.5, 10 * kGB), from_disk}, kRates, 20 * kGB, 1).ends[0], 2.5);
}

TEST(PassSimulatorTest, CopiesGoOnDuringCpuStepsAndAcrossPasses) {
  // Room for two groups: the copies never stop, the CPU reads at 12 all the time.
  const PassTimes deep =
      SimulatePasses({OnCpu(12 * kGB), Streamed(0.25, 10 * kGB)}, kRates, 20 * kGB, 3);
  EXPECT_DOUBLE_EQ(deep.ends[0], 1.25);
  EXPECT_DOUBLE_EQ(deep.ends[1], 2.5);
  EXPECT_DOUBLE_EQ(deep.ends[2], 3.75);
  EXPECT_DOUBLE_EQ(deep.copy, 3.75);
  // Room for one: when it has come, after 1 s and 12 GB, the CPU reads its last 3 at 20.
  const PassTimes shallow =
      SimulatePasses({OnCpu(15 * kGB), Streamed(0.25, 10 * kGB)}, kRates, 10 * kGB, 2);
  EXPECT_NEAR(shallow.ends[0], 1.4, 1e-9);
  EXPECT_NEAR(shallow.ends[1], 2.8, 1e-9);
  EXPECT_NEAR(shallow.copy, 2, 1e-9);
}

TEST(PassSimulatorTest, APieceThatDoesNotFitBeforeTheEndBeginsAtZero) {
  const std::vector<PassStep> steps = {OnGpu(2.5), Streamed(0.5, 10 * kGB), Streamed(0.5, 10 * kGB),
                                       Streamed(0.5, 10 * kGB)};
  // Room for three: copies 0-1, 1-2, 2-3; ops 2.5-3, 3-3.5, 3.5-4.
  EXPECT_DOUBLE_EQ(SimulatePasses(steps, kRates, 30 * kGB, 1).ends[0], 4);
  // Two and a half: the third waits until the first is given back at 3; ops 2.5-3, 3-3.5, 4-4.5.
  EXPECT_DOUBLE_EQ(SimulatePasses(steps, kRates, 25 * kGB, 1).ends[0], 4.5);
}

TEST(PassSimulatorTest, TheSteadyPassIsBoundByTheBusiestResource) {
  const SteadyPass copies =
      SimulateSteadyPass({OnGpu(0.5), Streamed(0.1, 10 * kGB)}, kRates, 20 * kGB);
  EXPECT_NEAR(copies.seconds, 1, 1e-9);
  EXPECT_NEAR(copies.copy_share, 1, 1e-9);
  EXPECT_NEAR(copies.gpu_share, 0.6, 1e-9);
  const SteadyPass gpu = SimulateSteadyPass({OnGpu(5), Streamed(0.1, 10 * kGB)}, kRates, 20 * kGB);
  EXPECT_NEAR(gpu.seconds, 5.1, 1e-9);
  EXPECT_NEAR(gpu.copy_share, 1 / 5.1, 1e-9);
}

}  // namespace
}  // namespace millrace
