#include "proto/device_time_table.h"

#include <gtest/gtest.h>

#include "planner/cost_model.h"
#include "planner/memory_budget.h"
#include "planner/prediction.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"

namespace millrace {
namespace {

// Two sizes of Q4_K, one of F16; times that no formula of the table gives by itself.
DeviceTimes Times() {
  DeviceTimes times;
  for (const auto& [mib, one, many] : {std::tuple(10, 10e-6, 30e-6), std::tuple(100, 40e-6, 90e-6)}) {
    times.products.push_back({DType::kQ4_K, 1, Bytes(int64_t{mib} << 20), one});
    times.products.push_back({DType::kQ4_K, 9, Bytes(int64_t{mib} << 20), many});
  }
  times.products.push_back({DType::kF16, 1, 100_MiB, 50e-6});
  times.attention = {{1, 5e-6, 1e-12}, {3, 9e-6, 3e-12}};
  times.sustained = {{1, 1.0}, {101, 1.5}};
  times.attention_flops = 1e14;
  return times;
}

constexpr double kMib = 1 << 20;

TEST(DeviceTimeTableTest, ReadsBetweenAndBeyondThePoints) {
  const DeviceTimes times = Times();
  const DeviceTimeTable table(times);
  const auto us = [&](DType type, int tokens, double mib) {
    return 1e6 * table.ProductSeconds(type, tokens, mib * kMib);
  };
  EXPECT_NEAR(us(DType::kQ4_K, 1, 10), 10, 1e-9);
  EXPECT_NEAR(us(DType::kQ4_K, 1, 55), 25, 1e-9);    // between the sizes
  EXPECT_NEAR(us(DType::kQ4_K, 5, 100), 65, 1e-9);   // between the rows
  EXPECT_NEAR(us(DType::kQ4_K, 17, 100), 140, 1e-9); // on with the slope of the last two
  EXPECT_NEAR(us(DType::kQ4_K, 1, 200), 80, 1e-9);   // by its time per byte
  EXPECT_NEAR(us(DType::kQ4_K, 1, 1), 7, 1e-9);      // launches stay
  EXPECT_NEAR(us(DType::kF16, 4, 50), 25, 1e-9);     // one point: by bytes
  EXPECT_NEAR(us(DType::kQ4_0, 1, 10), 10, 1e-9);    // as Q4_K: as many bits
  EXPECT_NEAR(us(DType::kBF16, 1, 100), 50, 1e-9);   // as F16
}

TEST(DeviceTimeTableTest, AttentionAndPower) {
  const DeviceTimes times = Times();
  const DeviceTimeTable table(times);
  EXPECT_NEAR(1e6 * table.AttentionSeconds(1, 1e6), 6, 1e-9);
  EXPECT_NEAR(1e6 * table.AttentionSeconds(2, 1e6), 9, 1e-9);
  EXPECT_NEAR(1e6 * table.AttentionSeconds(8, 1e6), 12, 1e-9);
  EXPECT_NEAR(table.SustainedRatioOf(51), 1.25, 1e-12);
  EXPECT_NEAR(table.SustainedRatioOf(4096), 1.5, 1e-12);
  EXPECT_EQ(DeviceTimeTable(DeviceTimes{}).SustainedRatioOf(8), 1);
}

// A 70B model with measured times: the prediction follows them, and longer prompts are read slower by
// attention and power.
TEST(DeviceTimeTableTest, PlansFollowMeasuredTimes) {
  PlacementProblem p = Llama70BOn(MeasuredMachine(), 80_GiB);
  DeviceTimes times = Times();
  p.cluster.hosts[0].devices[0].times = times;
  const PlacementPlan plan = Planned(p);
  for (ProductTime& t : times.products) t.seconds *= 2;
  p.cluster.hosts[0].devices[0].times = times;
  const PlacementPlan slow = Planned(p);
  const double ratio =
      absl::FDivDuration(slow.predicted.time_per_token, plan.predicted.time_per_token);
  EXPECT_GT(ratio, 1.8);
  EXPECT_LT(ratio, 2.0);
  const MemoryBudget memory(p);
  const Predictor predictor(p, memory, slow);
  EXPECT_GT(predictor.PrefillSeconds(4000) / 4000, 1.05 * predictor.PrefillSeconds(500) / 500);
}

}  // namespace
}  // namespace millrace
