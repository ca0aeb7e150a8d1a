// Running here when memory went between planning and loading: refused, or planned again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "planner/plan_report.h"
#include "proto/plan_json.h"
#include "tools/local_runtime.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ReplanTest : public ::testing::Test {
 protected:
  ReplanTest() {
    request_.budget.devices = "cpu";
    request_.budget.threads = 1;
    request_.budget.context = 128;
    request_.budget.max_pass_tokens = 64;
    request_.memory.host_available = [this]() -> std::optional<Bytes> {
      ++looks_;
      return available_;
    };
  }
  // The plan with this machine's own budgets, as a file.
  void PlanToFile(int slots) {
    RuntimeRequest roomy = request_;
    roomy.budget.slots = slots;
    roomy.memory.host_available = [] { return 1000_GiB; };
    const auto opened = OpenLocalRuntime(roomy);
    ASSERT_TRUE(opened.ok() && opened->runtime.has_value()) << opened.status();
    request_.plan_path = ::testing::TempDir() + "/replan.json";
    std::ofstream(request_.plan_path) << PlanToJson(opened->runtime->plan);
  }

  RuntimeRequest request_;
  Bytes available_ = 1000_GiB;
  int looks_ = 0;
};

TEST_F(ReplanTest, WhatFitsRunsAfterOneLook) {
  const auto opened = OpenLocalRuntime(request_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_TRUE(opened->runtime.has_value());
  EXPECT_EQ(looks_, 1);
}

TEST_F(ReplanTest, WhatNoLongerFitsIsRefusedWithTheDifference) {
  available_ = 2_MiB;
  const auto opened = OpenLocalRuntime(request_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(opened.status().message()),
              AllOf(HasSubstr("host memory: the plan takes"), HasSubstr("2.00 MiB are free now"),
                    HasSubstr("--replan")));
}

TEST_F(ReplanTest, ASmallerPlanIsMadeOfWhatIsFree) {
  ASSERT_NO_FATAL_FAILURE(PlanToFile(/*slots=*/64));  // with a cache 64 times as large
  available_ = 40_MiB;
  EXPECT_EQ(OpenLocalRuntime(request_).status().code(), absl::StatusCode::kFailedPrecondition);
  request_.replan = true;
  const auto opened = OpenLocalRuntime(request_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(opened->runtime.has_value()) << RenderInfeasible(*opened->infeasible);
  EXPECT_EQ(opened->runtime->plan.slots, 1);
  Bytes taken;
  for (const LedgerEntry& entry : opened->runtime->plan.ledger) {
    if (entry.purpose != Purpose::kOverhead) taken += entry.bytes;
  }
  EXPECT_LE(taken, available_);
}

TEST_F(ReplanTest, WherePlanningAgainFindsNothingItSaysWhy) {
  available_ = 2_MiB;
  request_.replan = true;
  const auto opened = OpenLocalRuntime(request_);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE(opened->infeasible.has_value());
  EXPECT_THAT(RenderInfeasible(*opened->infeasible), HasSubstr("does not fit"));
}

}  // namespace
}  // namespace millrace
