// Streaming of weights on a simulated device: what overlaps, what waits for what, to the
// nanosecond.
#include "worker/stream/weight_stream.h"

#include <gmock/gmock.h>

#include "tests/worker/stream/stream_testing.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr size_t kGroup = 10240;  // bytes: ten microseconds at 1.024 GB/s

SimStreamSpec Spec(int groups_in_ring) {
  SimStreamSpec spec;
  spec.ring = Bytes(static_cast<int64_t>(kGroup) * groups_in_ring);
  spec.link = Bandwidth::BytesPerSecond(1.024e9);
  return spec;
}

std::vector<int> UpTo(int n) {
  std::vector<int> order;
  for (int i = 0; i < n; ++i) order.push_back(i);
  return order;
}

TEST(WeightStreamTest, LinkNeverIdlesWhereItIsTheBound) {
  SimStream s(Spec(2), std::vector<size_t>(8, kGroup), kGroup);
  for (int pass = 0; pass < 5; ++pass) {
    s.Queue(UpTo(8), absl::Microseconds(4));
    s.Finish();
  }
  // Five passes of eight copies, the last product, and no more: passes do not begin anew.
  EXPECT_EQ(s.elapsed(), absl::Microseconds(5 * 8 * 10 + 4) + absl::Nanoseconds(1));
  EXPECT_EQ(s.device.wrong_reads(), 0);
  const StreamStats stats = s.stream->stats();
  EXPECT_EQ(stats.idle_share(), 0);
  EXPECT_EQ(stats.copied, Bytes(static_cast<int64_t>(kGroup)) * stats.copies);
  EXPECT_EQ(stats.busy, stats.copies * absl::Microseconds(10));
  EXPECT_GE(stats.groups, 40);
  EXPECT_EQ(stats.drops, 0);
}

TEST(WeightStreamTest, DeeperRingHidesUnevenWork) {
  // One long product per pass: a deep ring fills up meanwhile.
  absl::Duration elapsed[2];
  for (int deep = 0; deep < 2; ++deep) {
    SimStream s(Spec(deep ? 8 : 2), std::vector<size_t>(8, kGroup), kGroup);
    for (int pass = 0; pass < 4; ++pass) {
      ASSERT_TRUE(s.stream->BeginPass(UpTo(8)).ok());
      for (int g = 0; g < 8; ++g) {
        auto lease = s.Acquire(g);
        ASSERT_TRUE(lease.ok());
        s.Compute(*lease, absl::Microseconds(g == 0 ? 60 : 2));
      }
      s.Finish();
    }
    EXPECT_EQ(s.device.wrong_reads(), 0);
    elapsed[deep] = s.elapsed();
    EXPECT_EQ(s.stream->stats().stall(StreamStall::kRing).time > absl::ZeroDuration(), !deep);
    ExpectTimeAddsUp(s.stream->stats());
  }
  // 8 groups: 80 us of copies a pass, then the last products. The shallow ring, with its four
  // stages, stands still for 10 us during each long product.
  EXPECT_EQ(elapsed[1], absl::Microseconds(4 * 80 + 4) + absl::Nanoseconds(1));
  EXPECT_GE(elapsed[0], absl::Microseconds(4 * 90 + 2));
}

TEST(WeightStreamTest, SlowComputeIsARingStall) {
  SimStreamSpec spec = Spec(1);
  spec.stages = 1;
  SimStream s(spec, std::vector<size_t>(4, kGroup), kGroup);
  s.Queue(UpTo(4), absl::Microseconds(30));
  s.Finish();
  const StreamStats stats = s.stream->stats();
  // One group in the ring and one on the device before it: each later copy waits for a product.
  EXPECT_EQ(stats.stall(StreamStall::kSource).count, 0);
  EXPECT_EQ(stats.stall(StreamStall::kIdle).count, 0);
  EXPECT_GE(stats.stall(StreamStall::kRing).time, 2 * absl::Microseconds(20));
  ExpectTimeAddsUp(stats);
  EXPECT_EQ(s.device.wrong_reads(), 0);
}

TEST(WeightStreamTest, SlowSourceIsASourceStall) {
  SimStream s(Spec(4), std::vector<size_t>(4, kGroup), kGroup, Bandwidth::BytesPerSecond(0.512e9));
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  const StreamStats stats = s.stream->stats();
  // The disk takes 20 us for what the link takes 10 for.
  EXPECT_EQ(stats.stall(StreamStall::kSource).time, 3 * absl::Microseconds(10));
  EXPECT_EQ(stats.stall(StreamStall::kRing).count, 0);
  EXPECT_EQ(s.elapsed(), absl::Microseconds(4 * 20 + 10 + 1) + absl::Nanoseconds(1));
}

TEST(WeightStreamTest, TimeBetweenPassesIsIdle) {
  SimStream s(Spec(2), std::vector<size_t>(4, kGroup), kGroup);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  // Two groups of the next pass, and nothing to do then.
  s.RunUntil(absl::UnixEpoch() + absl::Microseconds(1000));
  EXPECT_EQ(s.stream->stats().copies, 6);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  const StreamStats stats = s.stream->stats();
  EXPECT_EQ(stats.stall(StreamStall::kIdle).time, absl::Microseconds(1000 - 60));
  EXPECT_EQ(stats.stall(StreamStall::kIdle).count, 1);
  EXPECT_EQ(stats.drops, 0);
  ExpectTimeAddsUp(stats);
}

TEST(WeightStreamTest, OtherOrderKeepsTheCommonBeginning) {
  SimStream s(Spec(4), std::vector<size_t>(6, kGroup), kGroup);
  s.Queue({0, 1, 2, 3}, absl::Microseconds(1));
  s.Finish();
  s.RunUntil(s.device.Now() + absl::Microseconds(100));  // 0, 1, 2, 3 are there again
  EXPECT_EQ(s.stream->stats().groups, 8);
  s.Queue({0, 1, 4, 5}, absl::Microseconds(1));
  EXPECT_EQ(s.stream->stats().drops, 2);
  EXPECT_EQ(s.stream->stats().dropped, Bytes(static_cast<int64_t>(2 * kGroup)));
  s.Finish();
  s.RunUntil(s.device.Now() + absl::Microseconds(100));
  // 4 and 5, then the beginning of the same order again.
  EXPECT_EQ(s.stream->stats().groups, 8 + 2 + 4);
  s.Queue({0, 1, 4, 5}, absl::Microseconds(1));
  s.Finish();
  EXPECT_EQ(s.stream->stats().drops, 2);
  EXPECT_EQ(s.device.wrong_reads(), 0);
}

TEST(WeightStreamTest, PassWithoutGroupsKeepsWhatIsThere) {
  SimStream s(Spec(4), std::vector<size_t>(4, kGroup), kGroup);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  ASSERT_TRUE(s.stream->BeginPass({}).ok());
  EXPECT_EQ(s.Acquire(0).status().code(), absl::StatusCode::kFailedPrecondition);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  EXPECT_EQ(s.stream->stats().drops, 0);
  EXPECT_EQ(s.device.wrong_reads(), 0);
}

TEST(WeightStreamTest, LeasesMayComeBackInAnyOrder) {
  SimStream s(Spec(3), std::vector<size_t>(6, kGroup), kGroup);
  for (int pass = 0; pass < 3; ++pass) {
    ASSERT_TRUE(s.stream->BeginPass(UpTo(6)).ok());
    for (int g = 0; g < 6; g += 3) {
      auto a = s.Acquire(g), b = s.Acquire(g + 1), c = s.Acquire(g + 2);
      ASSERT_TRUE(a.ok() && b.ok() && c.ok());
      s.Compute(*c, absl::Microseconds(30));
      ASSERT_TRUE(c->Release().ok());
      s.Compute(*a, absl::Microseconds(30));
      s.Compute(*b, absl::Microseconds(30));
      ASSERT_TRUE(b->Release().ok());
    }
    s.Finish();
  }
  EXPECT_EQ(s.device.wrong_reads(), 0);
}

TEST(WeightStreamTest, LeasesThatFillTheRingAreAnError) {
  SimStream s(Spec(2), std::vector<size_t>(3, kGroup), kGroup);
  ASSERT_TRUE(s.stream->BeginPass(UpTo(3)).ok());
  auto a = s.Acquire(0), b = s.Acquire(1);
  ASSERT_TRUE(a.ok() && b.ok());
  const absl::Status none = s.Acquire(2).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(none.message(), HasSubstr("group2"));
  ASSERT_TRUE(a->Release().ok());
  EXPECT_TRUE(s.Acquire(2).ok());
}

TEST(WeightStreamTest, GroupLargerThanTheRingIsRefused) {
  SimStreamDevice device(Spec(1));
  SimChunkSource source(&device, Bandwidth());
  const std::vector<std::byte> bytes(kGroup + 256);
  const auto made = WeightStream::Create(&device, &source, {GroupOfBytes(0, bytes, 4096)}, {});
  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(WeightStreamTest, OutOfOrderIsRefused) {
  SimStream s(Spec(2), std::vector<size_t>(3, kGroup), kGroup);
  EXPECT_EQ(s.Acquire(0).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(s.stream->BeginPass({0, 3}).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(s.stream->BeginPass({0, 1}).ok());
  EXPECT_EQ(s.Acquire(1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(s.Acquire(0).ok());
  EXPECT_TRUE(s.Acquire(1).ok());
  EXPECT_EQ(s.Acquire(0).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(WeightStreamTest, SourceErrorNamesTheTensorAndEndsWithThePass) {
  SimStream s(Spec(2), std::vector<size_t>(4, kGroup), kGroup / 4);
  s.source.FailAfter(4 + 2);  // in the middle of group 1
  ASSERT_TRUE(s.stream->BeginPass(UpTo(4)).ok());
  ASSERT_TRUE(s.Acquire(0).ok());
  const absl::Status failed = s.Acquire(1).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(failed.message(), HasSubstr("blk.1.weight"));
  EXPECT_EQ(s.Acquire(1).status(), failed);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  EXPECT_EQ(s.device.wrong_reads(), 0);
}

TEST(WeightStreamTest, SourceErrorWhilePrefetchingHurtsNoPass) {
  for (int takes = 16; takes < 24; ++takes) {  // in group 0 or 1 for the second pass
    SimStream s(Spec(2), std::vector<size_t>(4, kGroup), kGroup / 4);
    s.source.FailAfter(takes);
    for (int pass = 0; pass < 3; ++pass) {
      ASSERT_NO_FATAL_FAILURE(s.Queue(UpTo(4), absl::Microseconds(1)));
      s.Finish();
    }
    EXPECT_EQ(s.device.wrong_reads(), 0);
  }
}

TEST(WeightStreamTest, DeviceErrorIsFinal) {
  SimStream s(Spec(2), std::vector<size_t>(4, kGroup), kGroup);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.device.FailCopies(absl::InternalError("the link fell off"));
  s.stream->Pump();
  const absl::Status begun = s.stream->BeginPass(UpTo(4));
  EXPECT_THAT(begun.message(), HasSubstr("fell off"));
  EXPECT_FALSE(s.Acquire(0).ok());
}

TEST(WeightStreamTest, CopiesOfADroppedGroupDoNotHurtItsSuccessor) {
  SimStream s(Spec(4), std::vector<size_t>(8, kGroup), kGroup / 5);
  s.Queue({0, 1, 2, 3}, absl::Microseconds(1));
  // All copies are queued, few are made: the next pass wants other groups at the same places.
  s.Queue({4, 5, 6, 7}, absl::Microseconds(1));
  s.Queue({3, 2, 1, 0}, absl::Microseconds(1));
  s.Finish();
  EXPECT_EQ(s.device.wrong_reads(), 0);
  EXPECT_GT(s.stream->stats().drops, 0);
}

TEST(WeightStreamTest, EventsAreBoundedAndTellEachGroup) {
  SimStream s(Spec(2), std::vector<size_t>(4, kGroup), kGroup / 4);
  s.Queue(UpTo(4), absl::Microseconds(1));
  s.Finish();
  const std::vector<CopyEvent> events = s.stream->TakeEvents();
  ASSERT_GE(events.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(events[i].group, static_cast<int>(i));
    EXPECT_EQ(events[i].bytes, Bytes(static_cast<int64_t>(kGroup)));
    EXPECT_EQ(events[i].end - events[i].begin, absl::Microseconds(10));
  }
  EXPECT_TRUE(s.stream->TakeEvents().empty());
}

// The simulated device itself: it must see what a stream could do wrong.
TEST(SimStreamDeviceTest, ReadingTooEarlyOrTooLateIsSeen) {
  SimStream s(Spec(1), std::vector<size_t>(2, kGroup), kGroup);
  ASSERT_TRUE(s.stream->BeginPass(UpTo(2)).ok());
  auto early = s.stream->Acquire(0, kTestTimeout);
  ASSERT_TRUE(early.ok());
  s.Compute(*early, absl::Microseconds(1));  // without ComputeAfterArrival
  s.Finish();
  EXPECT_EQ(s.device.wrong_reads(), 2);
  ASSERT_TRUE(early->ComputeAfterArrival().ok());
  ASSERT_TRUE(early->Release().ok());
  s.device.Compute(absl::Microseconds(100), Bytes(0), s.data[0]);  // after Release
  s.Finish();
  EXPECT_GE(s.device.wrong_reads(), 3);
}

}  // namespace
}  // namespace millrace
