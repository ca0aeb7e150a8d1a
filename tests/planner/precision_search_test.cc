#include "planner/precision_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "planner/plan_report.h"
#include "planner/solver.h"
#include "proto/stored_types.h"
#include "tests/planner/llama_70b.h"
#include "tests/planner/planned.h"
#include "tests/planner/precision_testing.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr int kContext = 2048;

// A model of 2.1 GiB in F16 beside a GPU, or on a CPU.
class PrecisionSearchTest : public ::testing::Test {
 protected:
  PrecisionSearchTest() {
    question_.file = F16Model(16, 2048, 8192, 32000);
    question_.sensitivities = DefaultSensitivities(question_.file);
    question_.kv_cells = kContext;
  }

  PlacementProblem Problem(const ModelSpec& held, DType kv_type) {
    PlacementProblem p = Llama70BOn(kReferenceMachine, gpu_, 1, 64);
    p.model = held;
    p.kv_type = kv_type;
    p.context = kContext;
    HostSpec& host = p.cluster.hosts.front();
    host.budget = host.memory_total = host_;
    host.disk_bandwidth = disk_;
    if (cpu_) {
      DeviceSpec cpu;
      cpu.id = DeviceId("cpu");
      cpu.budget = cpu.memory_total = host_;
      cpu.memory_bandwidth = host.dram_bandwidth;
      host.devices = {cpu};
    }
    return p;
  }

  PrecisionAnswer Search() {
    const auto answer = SearchPrecision(question_, [&](const ModelSpec& held, DType kv_type) {
      ++problems_;
      return absl::StatusOr<PlacementProblem>(Problem(held, kv_type));
    });
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.value_or(PrecisionAnswer());
  }

  bool Resident(Bytes budget) {
    const PrecisionChoice choice = *ChoosePrecision(question_, budget);
    return *FitOf(Problem(*HeldModel(question_.file, choice.types), choice.kv_type)) ==
           Fit::kResident;
  }

  PrecisionQuestion question_;
  Bytes gpu_ = 8_GiB, host_ = 64_GiB;
  Bandwidth disk_;
  bool cpu_ = false;
  int problems_ = 0;
};

TEST_F(PrecisionSearchTest, WhatFitsIsLeftAsItIs) {
  const PrecisionAnswer answer = Search();
  EXPECT_TRUE(answer.choice.types.empty());
  EXPECT_EQ(answer.problem.kv_type, DType::kF16);
  EXPECT_EQ(problems_, 1);
  EXPECT_THAT(answer.reason, HasSubstr("as in the file all of it fits"));
  EXPECT_EQ(RenderPlanTable(Planned(answer.problem)).find("precision"), std::string::npos);
}

TEST_F(PrecisionSearchTest, TheLeastLoweringMakesAllOfItResident) {
  question_.may_lower_kv = true;
  for (Bytes gpu : {3200_MiB, 2800_MiB, 2400_MiB}) {
    gpu_ = gpu;
    const PrecisionAnswer answer = Search();
    EXPECT_FALSE(answer.choice.types.empty());
    EXPECT_LE(problems_, 12);
    problems_ = 0;
    const PlacementPlan plan = Planned(answer.problem);
    for (const BlockPlacement& b : plan.blocks) EXPECT_EQ(b.home, Home::kDevice) << b.name;
    EXPECT_EQ(plan.model_fingerprint, FingerprintOf(question_.file));
    EXPECT_EQ(HeldModel(question_.file, StoredTypesOf(plan))->weight_bytes(),
              answer.problem.model.weight_bytes());
    const PrecisionRange range = *PrecisionRangeOf(question_);
    EXPECT_TRUE(Resident(answer.choice.bytes));
    EXPECT_FALSE(Resident(answer.choice.bytes + Bytes((range.most - range.least).count() / 60)));
    EXPECT_THAT(RenderPlanTable(plan), HasSubstr("precision: "));
    EXPECT_THAT(RenderExplain(plan, nullptr), HasSubstr("converted when loaded"));
  }
}

TEST_F(PrecisionSearchTest, WhatStreamsAnywayStreamsAsInTheFile) {
  gpu_ = 1600_MiB;
  const PrecisionAnswer answer = Search();
  EXPECT_TRUE(answer.choice.types.empty());
  EXPECT_THAT(answer.reason, HasSubstr("lower types do not change that"));
}

TEST_F(PrecisionSearchTest, WhereTheHostIsShortItIsLoweredToFit) {
  gpu_ = 1600_MiB;
  host_ = 1500_MiB;
  const PrecisionAnswer answer = Search();
  EXPECT_FALSE(answer.choice.types.empty());
  EXPECT_EQ(*FitOf(answer.problem), Fit::kBesideGpu);
  EXPECT_THAT(answer.reason, HasSubstr("as in the file it would not"));
  // A disk would take it as it is, but every pass would wait for it.
  disk_ = Bandwidth::GBPerSecond(2);
  const PrecisionAnswer with_disk = Search();
  EXPECT_EQ(with_disk.choice.types, answer.choice.types);
  EXPECT_EQ(*FitOf(with_disk.problem), Fit::kBesideGpu);
}

TEST_F(PrecisionSearchTest, ACpuTakesWhatItsMemoryHolds) {
  cpu_ = true;
  host_ = 1800_MiB;
  const PrecisionAnswer answer = Search();
  EXPECT_FALSE(answer.choice.types.empty());
  const PlacementPlan plan = Planned(answer.problem);
  EXPECT_GT(static_cast<double>(plan.totals[0].used.count()),
            0.97 * static_cast<double>(host_.count()));
  host_ = 600_MiB;
  const PrecisionAnswer none = Search();
  EXPECT_EQ(*FitOf(none.problem), Fit::kNot);
  EXPECT_THAT(none.reason, HasSubstr("even at the lowest"));
}

TEST_F(PrecisionSearchTest, AGivenLimitIsForWeights) {
  const auto problem_of = [&](const ModelSpec& held, DType kv_type) {
    return absl::StatusOr<PlacementProblem>(Problem(held, kv_type));
  };
  question_.may_lower_kv = true;
  const auto answer = PrecisionWithin(question_, 1_GiB, problem_of);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_LE(answer->problem.model.weight_bytes(), 1_GiB);
  EXPECT_GT(answer->problem.model.weight_bytes(), 1_GiB - 8_MiB);
  EXPECT_EQ(answer->problem.kv_type, DType::kF16);
  EXPECT_EQ(PrecisionWithin(question_, 500_MiB, problem_of).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PrecisionSearchTest, ThePlanListsWhatItConverts) {
  gpu_ = 2500_MiB;
  const PrecisionAnswer answer = Search();
  PlacementPlan plan = Planned(answer.problem);
  bool converted = false;
  for (const BlockPlacement& b : plan.blocks) {
    if (b.stored_types.empty()) continue;
    converted = true;
    EXPECT_THAT(b.precision, HasSubstr("(from f16)")) << b.name;
  }
  EXPECT_TRUE(converted);
}

}  // namespace
}  // namespace millrace
