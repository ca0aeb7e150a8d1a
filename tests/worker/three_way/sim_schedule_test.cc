// Passes of a stage whose weights do not all fit, on the simulated device: what they take is what
// the resources take that do not hide behind each other, to the nanosecond.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/time/clock.h"
#include "proto/stream_layout.h"
#include "tests/worker/three_way/random_plan.h"
#include "tests/worker/three_way/sim_stages.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

class SimScheduleTest : public ::testing::Test {
 protected:
  static constexpr int kPass = 32;
  static constexpr int kDeep = 1 << 20;  // of the ring: all groups twice

  SimScheduleTest() {
    script_.slots = 1;
    script_.context = 128;
    script_.max_pass_tokens = kPass;
    plan_ = ResidentPlan(model_->spec(), script_, DType::kF16);
    blocks_ = BlocksOf(model_->spec());
  }

  // Every `step`th feed-forward block from layer `first` on.
  void HomeFeedForward(int first, int step, int host_route_max_tokens) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const Block& block = blocks_[b];
      if (block.kind != BlockKind::kFeedForward || block.layer < first) continue;
      if ((block.layer - first) % step != 0) continue;
      plan_.blocks[b].home = Home::kHost;
      plan_.blocks[b].host_route_max_tokens = host_route_max_tokens;
    }
  }
  // `more` bytes beside what the largest group takes, or kDeep.
  void SetRing(int64_t more) {
    const RingBounds bounds = RingOf(model_->spec(), plan_, 0);
    plan_.stages[0].stream_ring = more == kDeep ? bounds.all * 2 : bounds.least + Bytes(more);
  }
  void Make() {
    auto made = MakeSimStages(model_, plan_, spec_);
    ASSERT_TRUE(made.ok()) << made.status();
    stages_ = *std::move(made);
  }
  SimBackend& sim() { return *stages_.backends[0]; }

  absl::StatusOr<PassResult> RunPass(int tokens, bool output = true) {
    Pass pass;
    pass.id = ++passes_;
    for (int i = 0; i < tokens; ++i) pass.tokens.push_back(17 + i);
    pass.segments = {{0, 0, tokens}};
    if (output) {
      OutputRequest request;
      request.kind = OutputRequest::Kind::kLogits;
      request.row = tokens - 1;
      pass.outputs = {request};
    }
    return stages_.first->Run(pass, {}, absl::Now() + absl::Seconds(60));
  }
  // Virtual time of one more pass.
  absl::Duration TimePass(int tokens) {
    const absl::Duration before = sim().elapsed();
    const auto result = RunPass(tokens);
    EXPECT_TRUE(result.ok()) << result.status();
    return sim().elapsed() - before;
  }
  // Of a pass among many like it.
  absl::Duration SteadyPass(int tokens) {
    for (int i = 0; i < 5; ++i) TimePass(tokens);
    return TimePass(tokens);
  }

  static absl::Duration Of(Bytes bytes, Bandwidth rate) {
    return std::max(absl::Nanoseconds(1), bytes / rate);
  }
  // Products of a pass on the device; `tokens` decide which blocks the CPU computes.
  absl::Duration Products(int tokens) const {
    absl::Duration sum;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const BlockPlacement& placement = plan_.blocks[b];
      if (placement.home == Home::kHost && tokens <= placement.host_route_max_tokens) continue;
      for (const StreamedGroup& group : StreamedGroupsOf(model_->spec(), blocks_[b])) {
        absl::Duration time = Of(group.raw, spec_.hbm);
        const int rows = blocks_[b].kind == BlockKind::kHead ? 1 : tokens;
        if (spec_.flops > 0) {
          time = std::max(time, absl::Seconds(static_cast<double>(group.raw.count()) *
                                              static_cast<double>(rows) / spec_.flops));
        }
        sum += time;
      }
    }
    return sum;
  }
  // What the link takes for a pass's weights, chunk by chunk.
  absl::Duration Copies(int tokens) const {
    absl::Duration sum;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const BlockPlacement& placement = plan_.blocks[b];
      if (placement.home != Home::kHost || tokens <= placement.host_route_max_tokens) continue;
      for (int t : blocks_[b].tensors) {
        const TensorSpec& tensor = model_->spec().tensors[static_cast<size_t>(t)];
        if (tensor.shape.size() != 2) continue;
        for (Bytes at; at < tensor.size; at += spec_.chunk) {
          sum += Of(std::min(spec_.chunk, tensor.size - at), spec_.link);
        }
      }
    }
    return sum;
  }
  // Of all host-homed feed-forward blocks.
  int Chunks() const {
    int64_t chunks = 0;
    for (size_t b = 0; b < blocks_.size(); ++b) {
      if (plan_.blocks[b].home != Home::kHost) continue;
      for (int t : blocks_[b].tensors) {
        const TensorSpec& tensor = model_->spec().tensors[static_cast<size_t>(t)];
        const int64_t chunk = spec_.chunk.count();
        if (tensor.shape.size() == 2) chunks += (tensor.size.count() + chunk - 1) / chunk;
      }
    }
    return static_cast<int>(chunks);
  }
  int CpuBlocks(int tokens) const {
    int count = 0;
    for (const BlockPlacement& b : plan_.blocks) {
      count += b.home == Home::kHost && tokens <= b.host_route_max_tokens;
    }
    return count;
  }
  std::vector<float> Logits(int tokens) {
    const auto result = RunPass(tokens);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? result->outputs[0].logits : std::vector<float>();
  }
  std::vector<float> ResidentLogits(int tokens) {
    auto resident = MakeSimStages(model_, ResidentPlan(model_->spec(), script_, DType::kF16), {});
    EXPECT_TRUE(resident.ok());
    std::swap(stages_, *resident);
    const std::vector<float> logits = Logits(tokens);
    std::swap(stages_, *resident);
    return logits;
  }
  void ExpectTimeAddsUp() {
    const StreamStats stats = sim().stream()->stats();
    absl::Duration sum = stats.busy;
    for (const StreamStats::Stall& stall : stats.stalls) sum += stall.time;
    EXPECT_EQ(sum, stats.last_end - stats.first_begin);
  }

  const std::shared_ptr<const Model> model_ = *Model::Open("");
  std::vector<Block> blocks_;
  Script script_;
  PlacementPlan plan_;
  SimBackendSpec spec_;
  SimStages stages_;
  uint64_t passes_ = 0;
};

TEST_F(SimScheduleTest, ResidentPassTakesItsProducts) {
  Make();
  EXPECT_EQ(TimePass(1), Products(1));
  EXPECT_EQ(TimePass(kPass), Products(kPass));
  EXPECT_EQ(sim().stream(), nullptr);
}

TEST_F(SimScheduleTest, StreamingTakesTheLinksTimeAndNothingElse) {
  HomeFeedForward(0, 1, 0);
  SetRing(kDeep);
  Make();
  ASSERT_GT(Copies(1), Products(1) * 2);
  EXPECT_EQ(SteadyPass(1), Copies(1));
  // Across passes too.
  const StreamStats stats = sim().stream()->stats();
  EXPECT_EQ(stats.idle_share(), 0);
  EXPECT_EQ(stats.drops, 0);
  EXPECT_EQ(sim().device().wrong_reads(), 0);
}

TEST_F(SimScheduleTest, ShallowRingStallsDeepOneDoesNot) {
  HomeFeedForward(0, 2, 0);
  // The products take less than the copies, but not much.
  spec_.hbm = Bandwidth::GBPerSecond(200);
  spec_.stages = 2;
  ASSERT_LT(Products(1), Copies(1));
  ASSERT_GT(Products(1) * 1.5, Copies(1));
  absl::Duration before = absl::InfiniteDuration();
  absl::Duration first, last;
  for (const int64_t more : {int64_t{0}, int64_t{64} << 10, int64_t{256} << 10, int64_t{kDeep}}) {
    SetRing(more);
    Make();
    const absl::Duration pass = SteadyPass(1);
    EXPECT_LE(pass, before) << more;
    before = pass;
    if (more == 0) {
      first = pass;
      EXPECT_GT(sim().stream()->stats().stall(StreamStall::kRing).time, absl::ZeroDuration());
    }
    last = pass;
    EXPECT_EQ(sim().stream()->stats().stall(StreamStall::kSource).count, 0);
    ExpectTimeAddsUp();
  }
  EXPECT_EQ(last, Copies(1));
  EXPECT_GT(first, last * 1.1);
}

TEST_F(SimScheduleTest, SlowProductsHideTheCopies) {
  HomeFeedForward(0, 2, 0);
  spec_.hbm = Bandwidth::GBPerSecond(20);
  // The link waits for room in the ring, or where that holds a whole pass, for the pass after.
  for (const int64_t more : {int64_t{1} << 20, int64_t{kDeep}}) {
    SetRing(more);
    Make();
    EXPECT_EQ(SteadyPass(1), Products(1));
    const StreamStats stats = sim().stream()->stats();
    const StreamStall cause = more == kDeep ? StreamStall::kIdle : StreamStall::kRing;
    EXPECT_GT(stats.stall(cause).time, stats.busy / 2);
    for (int other = 0; other < kStreamStalls; ++other) {
      const auto which = static_cast<StreamStall>(other);
      if (which == cause) continue;
      EXPECT_EQ(stats.stall(which).time, absl::ZeroDuration()) << other;
    }
    ExpectTimeAddsUp();
  }
}

// The three resources: what a pass takes is the copies, or products and CPU one after the other.
TEST_F(SimScheduleTest, CopiesGoOnWhileTheCpuComputes) {
  HomeFeedForward(0, 2, kPass);
  HomeFeedForward(1, 2, 0);
  SetRing(kDeep);
  for (const double dram : {20.0, 60.0, 400.0}) {
    spec_.dram = Bandwidth::GBPerSecond(dram);
    Make();
    const absl::Duration turns = Products(1) + CpuBlocks(1) * sim().HostBlockTime();
    EXPECT_EQ(SteadyPass(1), std::max(Copies(1), turns)) << dram;
    EXPECT_EQ(Logits(5), ResidentLogits(5));
    EXPECT_EQ(sim().device().wrong_reads(), 0);
  }
}

TEST_F(SimScheduleTest, LargePassesHideTheCopiesBehindTheirProducts) {
  HomeFeedForward(0, 1, 0);
  SetRing(kDeep);
  // At one row the link is the bound, at 32 the arithmetic is.
  spec_.flops = 800e9;
  Make();
  EXPECT_EQ(SteadyPass(1), Copies(1));
  EXPECT_EQ(SteadyPass(kPass), Products(kPass));
}

TEST_F(SimScheduleTest, CpuInEveryPassTakesNoRing) {
  HomeFeedForward(0, 1, kPass);
  spec_.dram = Bandwidth::GBPerSecond(100);
  Make();
  for (int tokens : {1, kPass}) {
    EXPECT_EQ(TimePass(tokens), Products(tokens) + CpuBlocks(tokens) * sim().HostBlockTime());
  }
  EXPECT_EQ(sim().stream(), nullptr);
  EXPECT_EQ(Logits(kPass), ResidentLogits(kPass));
}

TEST_F(SimScheduleTest, OtherRoutesInTheNextPassDropWhatWasAhead) {
  HomeFeedForward(0, 2, 7);
  HomeFeedForward(1, 2, 0);
  SetRing(kDeep);
  Make();
  EXPECT_EQ(SteadyPass(kPass), Copies(kPass));
  EXPECT_EQ(sim().stream()->stats().drops, 0);
  EXPECT_EQ(Logits(7), ResidentLogits(7));
  // Layer 0's groups were on their way and are not wanted.
  EXPECT_GT(sim().stream()->stats().drops, 0);
  EXPECT_EQ(SteadyPass(7), Copies(7));
  EXPECT_EQ(Logits(8), ResidentLogits(8));
  EXPECT_EQ(sim().device().wrong_reads(), 0);
  ExpectTimeAddsUp();
}

TEST_F(SimScheduleTest, TimeBetweenPassesIsIdleAndFillsTheRing) {
  HomeFeedForward(0, 1, 0);
  SetRing(kDeep);
  Make();
  SteadyPass(1);
  sim().RunUntil(sim().device().Now() + absl::Milliseconds(100));
  // All is there: the next pass takes its products.
  EXPECT_EQ(TimePass(1), Products(1));
  EXPECT_EQ(sim().stream()->stats().stall(StreamStall::kIdle).count, 1);
  ExpectTimeAddsUp();
}

TEST_F(SimScheduleTest, LateBytesAreASourceStall) {
  HomeFeedForward(0, 1, 0);
  SetRing(kDeep);
  const Bandwidth disk = Bandwidth::GBPerSecond(5);
  spec_.make_source = [disk](SimStreamDevice& device) {
    return std::make_unique<SimChunkSource>(&device, disk);
  };
  Make();
  const absl::Duration pass = SteadyPass(1);
  EXPECT_GT(pass, Copies(1) * 9);
  const StreamStats stats = sim().stream()->stats();
  EXPECT_GT(stats.stall(StreamStall::kSource).time, stats.busy * 8);
  ExpectTimeAddsUp();
}

TEST_F(SimScheduleTest, BytesThatCannotBeReadFailThePassAndNotTheNext) {
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

TEST_F(SimScheduleTest, RingTooSmallForAGroupSaysSo) {
  HomeFeedForward(0, 1, 0);
  SetRing(0);
  plan_.stages[0].stream_ring -= Bytes(256);
  Make();
  const absl::Status failed = RunPass(1).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInvalidArgument) << failed;
  EXPECT_THAT(std::string(failed.message()), HasSubstr("ffn_gate"));
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

TEST_F(SimScheduleTest, CancelledInTheMiddleOfAPass) {
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

TEST_F(SimScheduleTest, DestroyedWhileCopiesAreUnderWay) {
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
