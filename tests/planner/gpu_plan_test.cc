// Planning over GPUs: their layouts' bytes, host homes, pass sizes, speed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "planner/cost_model.h"
#include "planner/host_rates.h"
#include "planner/memory_budget.h"
#include "planner/plan_validator.h"
#include "planner/solver.h"
#include "proto/device_layout.h"
#include "tests/planner/random_problem.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

PlacementProblem GpuProblem(bool tied, Bytes budget) {
  std::mt19937 rng(1);
  PlacementProblem p = BaseProblem(TestModel(4, tied, rng, false, 512));
  HostSpec host = CpuHost("w", 1_GiB, 20);
  host.devices = {Gpu("gpu0", budget, 4000, 50)};
  host.devices[0].overhead = 1_MiB;
  p.cluster.hosts = {host};
  return p;
}

TEST(GpuMemoryBudgetTest, CountsTilesVectorsAndTheRawTable) {
  const PlacementProblem p = GpuProblem(false, 1_GiB);
  const MemoryBudget memory(p);
  const int head = memory.size() - 1;
  const Bytes table(1000 * 512 * 2);
  const auto weights = [&](int b) { return memory.BlockWeights(DeviceKind::kGpu, b, 0, {}); };
  EXPECT_EQ(weights(0), table);
  EXPECT_EQ(weights(head), Bytes(1008 * 512 * 2) + Bytes(512 * 4));  // 1000 rows fill 63 tiles
  // Norm as f32; q and output [512, 512], k and v [256, 512] f16.
  EXPECT_EQ(weights(1), Bytes(512 * 4) + Bytes(3 * 512 * 512 * 2));
  EXPECT_EQ(memory.BlockWeights(DeviceKind::kCpu, 1, 0, {}),
            Bytes(512 * 2) + Bytes(3 * 512 * 512 * 2));
}

TEST(GpuMemoryBudgetTest, TiedHeadIsHeldTwiceOnAGpuAndOnceOnACpu) {
  const PlacementProblem p = GpuProblem(true, 1_GiB);
  const MemoryBudget memory(p);
  const int head = memory.size() - 1;
  EXPECT_EQ(memory.BlockWeights(DeviceKind::kGpu, head, 0, {}),
            Bytes(1008 * 512 * 2) + Bytes(512 * 4));
  EXPECT_EQ(memory.BlockWeights(DeviceKind::kCpu, head, 0, {}), Bytes(512 * 2));
  std::vector<bool> homes(static_cast<size_t>(memory.size()), false);
  homes[static_cast<size_t>(head)] = true;  // in host memory, the table on the device
  EXPECT_EQ(memory.BlockWeights(DeviceKind::kGpu, head, 0, homes),
            Bytes(1000 * 512 * 2) + Bytes(512 * 2));
  homes[0] = true;
  EXPECT_EQ(memory.BlockWeights(DeviceKind::kGpu, head, 0, homes), Bytes(512 * 2));
}

TEST(GpuMemoryBudgetTest, EveryPurposeIsRoundedUpToTheGrain) {
  const PlacementProblem p = GpuProblem(false, 1_GiB);
  const MemoryBudget memory(p);
  const StageNeeds needs = memory.Needs(p.cluster.hosts[0].devices[0], 0, memory.size(), {});
  for (Bytes purpose : {needs.weights, needs.kv, needs.activations}) {
    EXPECT_GT(purpose, Bytes(0));
    EXPECT_EQ(purpose.count() % kDeviceGrain.count(), 0);
  }
  EXPECT_EQ(needs.overhead, 1_MiB);
  EXPECT_EQ(needs.stream_ring, Bytes(0));
  DeviceSpec cpu;
  EXPECT_EQ(memory.Needs(cpu, 0, memory.size(), {}).activations, 15_KiB);
}

TEST(GpuMemoryBudgetTest, VectorsAndOddMatricesAreAligned) {
  EXPECT_EQ(DeviceVectorBytes(1), 256_B);
  EXPECT_EQ(DeviceVectorBytes(64), 256_B);
  EXPECT_EQ(DeviceVectorBytes(65), 512_B);
  EXPECT_EQ(TiledBytes(DType::kQ4_K, 17, 256), Bytes(32 * 144));
}

TEST(CostModelTest, PromptsOnAGpuTakeAShareOfTheProbesFlops) {
  const PlacementProblem p = GpuProblem(false, 1_GiB);
  const MemoryBudget memory(p);
  const CostModel cost(p, memory);
  DeviceSpec gpu = p.cluster.hosts[0].devices[0];
  gpu.prefill_flops = 1e10;
  // Gate, up and down of [256, 512], and a norm of 512 values.
  const double flops = 2.0 * (3 * 256 * 512 + 512) * 64;
  EXPECT_NEAR(cost.DeviceSeconds(p.cluster.hosts[0], gpu, 2, {64, true}),
              flops / (1e10 * kGpuPrefillEfficiency) + kGpuHalfLayerSeconds, 1e-9);
}

TEST(CostModelTest, ACpuStageTakesItsMeasuredProducts) {
  PlacementProblem p = GpuProblem(false, 1_GiB);
  p.cluster.hosts = {CpuHost("w", 1_GiB, 20)};
  HostSpec& host = p.cluster.hosts[0];
  const MemoryBudget memory(p);
  const CostModel cost(p, memory);
  const DeviceSpec& cpu = host.devices[0];
  const double bytes = static_cast<double>(memory.blocks()[2].weights.count());
  EXPECT_NEAR(cost.DeviceSeconds(host, cpu, 2, {1, true}), bytes / 20e9, 1e-9);
  host.cpu_rates = {{1, Bandwidth::GBPerSecond(10)}, {64, Bandwidth::GBPerSecond(1)}};
  EXPECT_NEAR(cost.DeviceSeconds(host, cpu, 2, {1, true}), bytes / 10e9, 1e-9);
  const double at_64 = CpuProductSeconds(host, bytes, 3 * 256 * 512 + 512, 64, LinkLoad::kIdle);
  EXPECT_NEAR(cost.DeviceSeconds(host, cpu, 2, {64, true}), at_64, 1e-9);
  const int head = memory.size() - 1;  // one row of a prompt
  EXPECT_EQ(cost.DeviceSeconds(host, cpu, head, {64, true}),
            cost.DeviceSeconds(host, cpu, head, {1, true}));
}

TEST(GpuSolverTest, ExactFitIsFoundAndTheLedgerIsValid) {
  PlacementProblem p = GpuProblem(true, 1_GiB);
  const MemoryBudget memory(p);
  DeviceSpec& gpu = p.cluster.hosts[0].devices[0];
  gpu.budget = memory.Needs(gpu, 0, memory.size(), {}).device_total();
  const auto result = *Solve(p);
  ASSERT_TRUE(result.plan.has_value());
  EXPECT_TRUE(ValidatePlan(p, *result.plan).ok());
  for (const BlockPlacement& b : result.plan->blocks) EXPECT_EQ(b.home, Home::kDevice);
  gpu.budget -= 1_B;
  EXPECT_FALSE(ValidatePlan(p, *result.plan).ok());
}

TEST(GpuSolverTest, ThePlanSaysWhatAGpuHolds) {
  PlacementProblem p = GpuProblem(false, 1_GiB);
  for (TensorSpec& t : p.model.tensors) {
    if (t.shape.size() != 2) continue;
    t.dtype = DType::kF32;
    t.size = RowBytes(t.dtype, t.cols()) * t.rows();
  }
  const PlacementPlan gpu = *Solve(p)->plan;
  EXPECT_EQ(gpu.blocks.front().precision, "f32");  // the table, as in the file
  EXPECT_EQ(gpu.blocks[1].precision, "f16 (from f32)");
  EXPECT_EQ(gpu.blocks.back().precision, "f16 (from f32)");
  p.cluster.hosts = {CpuHost("w", 1_GiB, 20)};
  const PlacementPlan cpu = *Solve(p)->plan;
  for (const BlockPlacement& b : cpu.blocks) EXPECT_EQ(b.precision, "f32");
}

TEST(GpuSolverTest, SplitsOverLogicalDevicesOfOneGpu) {
  PlacementProblem p = GpuProblem(false, 16_MiB);
  p.cluster.hosts[0].devices.push_back(Gpu("gpu0#1", 16_MiB, 4000, 50));
  const auto result = *Solve(p);
  ASSERT_TRUE(result.plan.has_value()) << result.infeasible->summary;
  p.cluster.hosts[0].devices[0].budget = p.cluster.hosts[0].devices[1].budget = 12_MiB;
  const auto split = *Solve(p);
  ASSERT_TRUE(split.plan.has_value()) << split.infeasible->summary;
  EXPECT_EQ(split.plan->stages.size(), 2u);
  EXPECT_TRUE(ValidatePlan(p, *split.plan).ok());
}

TEST(GpuSolverTest, WhatNeitherGpuNorHostHoldsIsRefusedAndTheRefusalSaysWhatWouldDo) {
  PlacementProblem p = GpuProblem(false, 12_MiB);
  ASSERT_TRUE(Solve(p)->plan.has_value());
  p.cluster.hosts[0].budget = 1_MiB;
  const auto result = *Solve(p);
  ASSERT_TRUE(result.infeasible.has_value());
  ASSERT_EQ(result.infeasible->nearest_budget.size(), 1u);
  const auto fix = result.infeasible->nearest_budget[0];
  EXPECT_THAT(result.infeasible->summary, HasSubstr("it would fit with w/" + fix.memory));
  (fix.memory == "host" ? p.cluster.hosts[0].budget : p.cluster.hosts[0].devices[0].budget) =
      fix.wanted;
  EXPECT_TRUE(Solve(p)->plan.has_value());
}

TEST(GpuSolverTest, EightGpusThatCannotHoldEightyLayersAreRefusedSoon) {
  std::mt19937 rng(3);
  PlacementProblem p = BaseProblem(TestModel(80, false, rng, false, 512));
  HostSpec host = CpuHost("w", 1_MiB, 20);
  host.devices.clear();
  for (int i = 0; i < 8; ++i) {
    host.devices.push_back(Gpu("gpu" + std::to_string(i), 16_MiB, 4000, 50));
  }
  p.cluster.hosts = {host};
  const absl::Time begin = absl::Now();
  const auto result = *Solve(p);
  ASSERT_TRUE(result.infeasible.has_value());
  ASSERT_EQ(result.infeasible->nearest_budget.size(), 1u);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));  // generous: sanitizers and shared machines
}

TEST(GpuSolverTest, PinsToTheHostAreObeyedOnGpuStages) {
  PlacementProblem p = GpuProblem(false, 1_GiB);
  p.pins = {{"blk.*.ffn", "host"}, {"blk.1.ffn", "device"}};
  const PlacementPlan plan = *Solve(p)->plan;
  for (const BlockPlacement& b : plan.blocks) {
    const bool ffn = b.name.find("ffn") != std::string::npos;
    EXPECT_EQ(b.home == Home::kHost, ffn && b.name != "blk.1.ffn") << b.name;
  }
  EXPECT_GT(plan.stages[0].stream_ring, Bytes(0));
  p.pins = {{"embed", "host"}};
  const PlacementPlan looked_up = *Solve(p)->plan;
  EXPECT_EQ(looked_up.blocks[0].home, Home::kHost);
  EXPECT_EQ(looked_up.stages[0].stream_ring, Bytes(0));
}

TEST(GpuValidatorTest, CatchesWrongKindsAndBytes) {
  const PlacementProblem p = GpuProblem(false, 1_GiB);
  const PlacementPlan good = *Solve(p)->plan;
  ASSERT_TRUE(ValidatePlan(p, good).ok());
  PlacementPlan bad = good;
  bad.stages[0].device_kind = DeviceKind::kCpu;
  EXPECT_FALSE(ValidatePlan(p, bad).ok());
  for (size_t i = 0; i < good.ledger.size(); ++i) {
    bad = good;
    bad.ledger[i].bytes -= 1_B;
    EXPECT_FALSE(ValidatePlan(p, bad).ok()) << i;
  }
  PlacementProblem other = p;
  other.gpu_activations.body += 4_MiB;
  EXPECT_FALSE(ValidatePlan(other, good).ok());
  other = p;
  other.activations.body += 4_MiB;  // of CPUs
  EXPECT_TRUE(ValidatePlan(other, good).ok());
}

TEST(GpuCostTest, DecodeIsBandwidthAndAConstantPerHalfLayer) {
  const PlacementProblem p = GpuProblem(false, 1_GiB);
  const MemoryBudget memory(p);
  const CostModel cost(p, memory);
  const DeviceSpec& gpu = p.cluster.hosts[0].devices[0];
  const int head = memory.size() - 1;
  const double bytes = static_cast<double>(memory.blocks()[head].weights.count());
  EXPECT_NEAR(cost.DeviceSeconds(p.cluster.hosts[0], gpu, head, {}),
              bytes / (4000e9 * kGpuDecodeEfficiency), 1e-9);
  const double ffn = static_cast<double>(memory.blocks()[2].weights.count());
  EXPECT_NEAR(cost.DeviceSeconds(p.cluster.hosts[0], gpu, 2, {}),
              ffn / (4000e9 * kGpuDecodeEfficiency) + kGpuHalfLayerSeconds, 1e-9);
}

}  // namespace
}  // namespace millrace
