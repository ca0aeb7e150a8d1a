// Passes of a stage whose weights do not all fit, on the simulated device: what they take is what
// the resources take that do not hide behind each other, to the nanosecond.
#include "tests/worker/three_way/sim_schedule.h"

namespace millrace {
namespace {

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

// Every block cut at a third: what a pass takes is the copies of the tails, or what the CPU takes for
// the heads and the device for the rest of the model.
TEST_F(SimScheduleTest, SplitBlocksTakeTheLongerOfTheirParts) {
  HomeFeedForward(0, 1, 0);
  constexpr int kUnits = 256;
  absl::Duration resident, copies;
  Bytes tail, whole;
  int64_t blocks = 0;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].kind != BlockKind::kFeedForward) {
      for (const StreamedGroup& group : StreamedGroupsOf(model_->spec(), blocks_[b])) {
        resident += Of(group.raw, spec_.hbm);
      }
      continue;
    }
    plan_.blocks[b].cpu_shares = {{kPass, kUnits}};
    tail = Bytes(0);
    for (const StreamedGroup& group : StreamedGroupsOf(model_->spec(), blocks_[b], kUnits)) {
      tail += group.raw;
    }
    whole = blocks_[b].weights;
    ++blocks;
  }
  SetRing(kDeep);
  for (const double dram : {1.0, 4000.0}) {
    spec_.dram = Bandwidth::GBPerSecond(dram);
    spec_.chunk = 64_MiB;  // a matrix is one
    Make();
    const absl::Duration on_cpu = resident + (whole - tail) / spec_.dram * blocks;
    copies = tail / spec_.link * blocks;
    const absl::Duration pass = SteadyPass(1);
    // To the rounding of each chunk's time.
    EXPECT_LE(absl::AbsDuration(pass - std::max(on_cpu, copies)), absl::Nanoseconds(200)) << dram;
    EXPECT_EQ(on_cpu > copies, dram < 100);
    EXPECT_EQ(sim().stream()->stats().drops, 0);
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

}  // namespace
}  // namespace millrace
