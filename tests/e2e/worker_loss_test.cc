// A worker is killed, or stopped, in the middle of a generation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/time/clock.h"
#include "tests/e2e/cluster_process.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr char kBudget[] = "38MiB";  // per worker: the demo model does not fit one
constexpr absl::Duration kDetection = absl::Seconds(5);

class WorkerLossTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    goldens_ = ReadGoldens();
    if (goldens_.empty()) GTEST_SKIP() << "../shared/models/quill-7m-goldens.json is absent";
    cluster_.StartWorker("w0", kBudget);
    cluster_.StartWorker("w1", kBudget);
    ASSERT_TRUE(cluster_.WaitForWorkers(2));
    v1::LoadRequest request;
    request.mutable_options()->set_context(2048);
    const absl::StatusOr<v1::LoadEvent> event = cluster_.Load(request);
    ASSERT_TRUE(event.ok()) << event.status();
    ASSERT_TRUE(event->has_loaded()) << event->DebugString();
    ASSERT_EQ(event->loaded().stages_size(), 2);
  }
  void TearDown() override {
    if (HasFailure()) std::fputs(cluster_.Logs().c_str(), stderr);
  }
  // Generates, sends `signal` to `worker` after some tokens, and expects a clear, early end.
  void HitDuringGeneration(const std::string& worker, int signal) {
    absl::Time hit = absl::InfiniteFuture();
    const Generated generated =
        cluster_.Generate(GreedyRequest(goldens_[0], 2000), [&](int tokens) {
          if (tokens != 10) return;
          cluster_.worker(worker).Signal(signal);
          hit = absl::Now();
        });
    ASSERT_LT(hit, absl::Now()) << "ended before it was hit: " << generated.status;
    EXPECT_LT(absl::Now() - hit, kDetection);
    EXPECT_EQ(generated.status.code(), absl::StatusCode::kUnavailable) << generated.status;
    EXPECT_THAT(std::string(generated.status.message()), HasSubstr("'" + worker + "'"));
    std::printf("[ detected ] after %s: %s\n", absl::FormatDuration(absl::Now() - hit).c_str(),
                generated.status.ToString().c_str());
  }
  void ExpectServiceAgain() {
    ASSERT_TRUE(cluster_.WaitForWorkers(2));
    for (const GoldenCase& golden : goldens_) {
      const Generated generated = cluster_.Generate(GreedyRequest(golden, 48));
      ASSERT_TRUE(generated.status.ok()) << generated.status;
      EXPECT_EQ(generated.tokens, golden.greedy);
    }
  }

  std::vector<GoldenCase> goldens_;
  TestCluster cluster_;
};

TEST_P(WorkerLossTest, KilledMidGenerationThenRestarted) {
  const pid_t planner = cluster_.planner().pid();
  ASSERT_NO_FATAL_FAILURE(HitDuringGeneration(GetParam(), SIGKILL));
  EXPECT_EQ(kill(planner, 0), 0) << "the planner lives on";
  const std::string other = GetParam() == "w0" ? "w1" : "w0";
  EXPECT_EQ(cluster_.worker(other).Wait(absl::ZeroDuration()), -1) << "the other worker lives on";
  const Generated without = cluster_.Generate(GreedyRequest(goldens_[0], 4));
  EXPECT_EQ(without.status.code(), absl::StatusCode::kUnavailable) << without.status;
  EXPECT_THAT(std::string(without.status.message()), HasSubstr("'" + GetParam() + "'"));
  cluster_.StartWorker(GetParam(), kBudget);
  ExpectServiceAgain();
}

TEST_P(WorkerLossTest, StoppedMidGenerationThenContinued) {
  ASSERT_NO_FATAL_FAILURE(HitDuringGeneration(GetParam(), SIGSTOP));
  cluster_.worker(GetParam()).Signal(SIGCONT);
  ExpectServiceAgain();
}

INSTANTIATE_TEST_SUITE_P(LeaderAndFollower, WorkerLossTest, ::testing::Values("w0", "w1"));

}  // namespace
}  // namespace millrace
