// Passes on the simulated device that do not come to their end: bytes that cannot be read,
// cancelling, stages destroyed while copies are under way.
#include <gmock/gmock.h>

#include <thread>

#include "tests/worker/three_way/sim_schedule.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

using SimFailureTest = SimScheduleTest;

TEST_F(SimFailureTest, BytesThatCannotBeReadFailThePassAndNotTheNext) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  SimChunkSource* source = nullptr;
  spec_.make_source = [&source](SimStreamDevice& device) {
    auto made = std::make_unique<SimChunkSource>(&device, Bandwidth());
    source = made.get();
    return made;
  };
  Make();
  const std::vector<float> expected = ResidentLogits(3);
  EXPECT_EQ(Logits(3), expected);
  for (const int takes : {0, 3, 11}) {
    source->FailAfter(takes);
    const absl::Status failed = RunPass(3).status();
    EXPECT_EQ(failed.code(), absl::StatusCode::kDataLoss) << failed;
    EXPECT_THAT(std::string(failed.message()), HasSubstr("ffn"));
    EXPECT_EQ(Logits(3), expected) << takes;
  }
  EXPECT_EQ(sim().device().wrong_reads(), 0);
}

TEST_F(SimFailureTest, RingTooSmallForAGroupIsRefusedAtLoad) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  plan_.stages[0].stream_ring -= Bytes(256);
  const absl::Status refused = MakeSimStages(model_, plan_, spec_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("ffn_gate"));
}

TEST_F(SimFailureTest, SharesThatCutABlockBadlyAreRefusedAtLoad) {
  HomeFeedForward(0, 1, 2);
  SetRing(0);
  const auto refusal = [&](const std::vector<CpuShare>& shares) {
    plan_.blocks[2].cpu_shares = shares;
    return MakeSimStages(model_, plan_, spec_).status();
  };
  EXPECT_TRUE(refusal({{4, 768}, {8, 256}, {16, 0}}).ok());
  for (const std::vector<CpuShare>& shares :
       {std::vector<CpuShare>{{4, 100}}, {{4, -256}}, {{4, 1024}}, {{2, 256}}, {{4, 256}, {4, 0}}}) {
    const absl::Status refused = refusal(shares);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << refused;
    EXPECT_THAT(std::string(refused.message()), HasSubstr("splits blk.0.ffn"));
  }
}

TEST_F(SimFailureTest, TheEmbeddedModelLiesOnNoDisk) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  for (BlockPlacement& b : plan_.blocks) {
    if (b.home == Home::kHost) b.home = Home::kDisk;
  }
  const absl::Status refused = MakeSimStages(model_, plan_, spec_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("blk.0.ffn"));
}

// Of four blocks in host memory the budget holds three: with one on disk the stage loads, and gives
// the resident run's logits.
TEST_F(SimFailureTest, WhatTheHostBudgetDoesNotHoldComesFromDisk) {
  model_ = *Model::Open("deploy/models/quill-7m-f16.gguf");
  HomeFeedForward(0, 2, 0);
  SetRing(0);
  LedgerTotal host;
  host.worker = plan_.stages[0].worker;
  host.memory = "host";
  host.budget = 4_MiB;  // four blocks of 1.1 MiB each
  plan_.totals.push_back(host);
  EXPECT_EQ(MakeSimStages(model_, plan_, spec_).status().code(),
            absl::StatusCode::kResourceExhausted);
  for (BlockPlacement& b : plan_.blocks) {
    if (b.home != Home::kHost) continue;
    b.home = Home::kDisk;
    break;
  }
  Make();
  EXPECT_EQ(Logits(3), ResidentLogits(3));
  EXPECT_EQ(Logits(3), ResidentLogits(3));
  EXPECT_EQ(sim().device().wrong_reads(), 0);
}

TEST_F(SimFailureTest, HostBudgetOfThePlanIsEnforcedAtLoad) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  LedgerTotal host;
  host.worker = plan_.stages[0].worker;
  host.memory = "host";
  host.budget = 1_GiB;
  plan_.totals.push_back(host);
  EXPECT_TRUE(MakeSimStages(model_, plan_, spec_).ok()) << "within the budget";
  plan_.totals.back().budget = 64_KiB;
  const absl::Status refused = MakeSimStages(model_, plan_, spec_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("64.0 KiB"));
}

// A source that gives some chunks, then nothing until it is cancelled.
class DryingSource : public ChunkSource {
 public:
  explicit DryingSource(int chunks) : left_(chunks) {}
  bool Request(const StreamChunk& chunk) override { return true; }
  absl::StatusOr<HostChunk> Take(const StreamChunk& chunk, absl::Duration timeout) override {
    absl::MutexLock lock(&mu_);
    if (left_-- > 0) return HostChunk{chunk.bytes.data(), absl::ZeroDuration()};
    dry_ = true;
    if (!mu_.AwaitWithTimeout(absl::Condition(&cancelled_), timeout)) {
      return absl::DeadlineExceededError("dry");
    }
    return absl::CancelledError("cancelled");
  }
  void Sent(int64_t copy) override {}
  void Copied(int64_t copies) override {}
  void Forget() override {}
  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }
  void AwaitDry() {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&dry_), absl::Seconds(20));
  }

 private:
  absl::Mutex mu_;
  int left_ ABSL_GUARDED_BY(mu_);
  bool dry_ ABSL_GUARDED_BY(mu_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

TEST_F(SimFailureTest, CancelledInTheMiddleOfAPass) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  spec_.drive = WeightStreamOptions::Drive::kThread;
  for (const int more : {0, 5, 40}) {
    DryingSource* source = nullptr;
    // Enough for the first pass.
    spec_.make_source = [&](SimStreamDevice&) {
      auto made = std::make_unique<DryingSource>(Chunks() + more);
      source = made.get();
      return made;
    };
    Make();
    ASSERT_TRUE(RunPass(2).ok());
    std::thread canceller([source, stream = sim().stream()] {
      source->AwaitDry();
      absl::SleepFor(absl::Milliseconds(5));
      stream->Cancel();
    });
    const absl::Time begin = absl::Now();
    EXPECT_EQ(RunPass(2).status().code(), absl::StatusCode::kCancelled);
    EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
    canceller.join();
    EXPECT_EQ(RunPass(2).status().code(), absl::StatusCode::kCancelled);
  }
}

TEST_F(SimFailureTest, DestroyedWhileCopiesAreUnderWay) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  for (const auto drive :
       {WeightStreamOptions::Drive::kCaller, WeightStreamOptions::Drive::kThread}) {
    spec_.drive = drive;
    for (int round = 0; round < 5; ++round) {
      Make();
      // Nobody waits for a pass without outputs.
      EXPECT_TRUE(RunPass(kPass, false).ok());
      stages_ = SimStages();
    }
  }
}

}  // namespace
}  // namespace millrace
