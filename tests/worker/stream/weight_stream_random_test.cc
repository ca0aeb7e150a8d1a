// Hundreds of random schedules: sizes, orders, rings, rates, leases held, passes cut short. Every
// byte that is read is checked, and everything gets done.
#include <gmock/gmock.h>

#include <thread>

#include "tests/worker/stream/stream_testing.h"

namespace millrace {
namespace {

class Schedule {
 public:
  explicit Schedule(uint64_t seed) : rng_(seed) {
    std::vector<size_t> sizes(static_cast<size_t>(Random(1, 12)));
    size_t largest = 0, sum = 0;
    for (size_t& size : sizes) {
      size = static_cast<size_t>(Random(1, 6000));
      largest = std::max(largest, (size + 255) / 256 * 256);
      sum += (size + 255) / 256 * 256;
    }
    SimStreamSpec spec;
    // From what just holds the largest group to more than a pass.
    const int64_t more = Chance(3) ? 0 : Random(0, static_cast<int64_t>(2 * sum));
    spec.ring = Bytes(static_cast<int64_t>(largest) + more / 256 * 256);
    spec.slots = static_cast<int>(Random(1, 9));
    spec.max_queued_copies = static_cast<int>(Chance(2) ? Random(1, 5) : 1 << 20);
    spec.link = Bandwidth::BytesPerSecond(static_cast<double>(Random(1, 100)) * 1e8);
    spec.place = Bandwidth::BytesPerSecond(static_cast<double>(Random(1, 1000)) * 1e8);
    spec.stages = static_cast<int>(Random(1, 4));
    const Bandwidth disk =
        Chance(4) ? Bandwidth::BytesPerSecond(static_cast<double>(Random(1, 100)) * 1e8)
                  : Bandwidth();
    sim_ = std::make_unique<SimStream>(spec, sizes, static_cast<size_t>(Random(100, 3000)), disk,
                                       seed);
    groups_ = static_cast<int>(sizes.size());
  }

  void Run() {
    const int64_t passes = Random(2, 12);
    for (int64_t pass = 0; pass < passes; ++pass) {
      if (pass == 0 || Chance(2)) order_ = RandomOrder();
      ASSERT_TRUE(sim_->stream->BeginPass(order_).ok());
      const int64_t until = Chance(6) ? Random(0, static_cast<int64_t>(order_.size()))
                                      : static_cast<int64_t>(order_.size());
      for (int64_t i = 0; i < until; ++i) {
        ASSERT_NO_FATAL_FAILURE(UseGroup(order_[static_cast<size_t>(i)]));
      }
      if (Chance(2)) held_.clear();
      if (Chance(2)) sim_->Finish();
    }
    held_.clear();
    sim_->Finish();
    sim_->RunUntil(sim_->device.Now() + absl::Seconds(1));
    EXPECT_EQ(sim_->device.wrong_reads(), 0);
    ExpectTimeAddsUp(sim_->stream->stats());
  }

 private:
  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng_);
  }
  bool Chance(int one_in) { return Random(1, one_in) == 1; }

  std::vector<int> RandomOrder() {
    std::vector<int> order;
    for (int g = 0; g < groups_; ++g) {
      if (!Chance(3)) order.push_back(g);
    }
    if (Chance(4)) std::shuffle(order.begin(), order.end(), rng_);
    if (Chance(5) && !order.empty()) order.push_back(order[0]);
    return order;
  }

  void UseGroup(int group) {
    auto lease = sim_->Acquire(group);
    if (absl::IsResourceExhausted(lease.status()) && !held_.empty()) {
      held_.clear();
      lease = sim_->Acquire(group);
    }
    ASSERT_TRUE(lease.ok()) << lease.status();
    sim_->Compute(*lease, absl::Nanoseconds(Random(0, 20000)));
    if (Chance(3)) sim_->Compute(*lease, absl::Nanoseconds(Random(0, 20000)));
    if (Chance(3)) {
      held_.push_back(*std::move(lease));
    } else {
      ASSERT_TRUE(lease->Release().ok());
    }
    while (!held_.empty() && Chance(2)) {
      std::swap(held_[static_cast<size_t>(Random(0, static_cast<int64_t>(held_.size()) - 1))],
                held_.back());
      held_.pop_back();
    }
    if (Chance(5)) sim_->RunUntil(sim_->device.Now() + absl::Nanoseconds(Random(0, 50000)));
  }

  std::mt19937_64 rng_;
  std::unique_ptr<SimStream> sim_;
  std::vector<WeightLease> held_;
  std::vector<int> order_;
  int groups_ = 0;
};

TEST(WeightStreamRandomTest, EveryByteIsRightAndEverythingGetsDone) {
  const uint64_t first = std::random_device()();
  for (uint64_t seed = first; seed < first + 600; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Schedule schedule(seed);
    schedule.Run();
    if (::testing::Test::HasFailure()) break;
  }
}

// With the copy thread: times differ from run to run, bytes do not.
TEST(WeightStreamRandomTest, CopyThreadAndComputeThread) {
  std::mt19937_64 rng(std::random_device{}());
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<std::byte>> data;
    std::vector<StreamGroup> groups;
    for (int i = 0; i < 8; ++i) {
      data.emplace_back(200 + rng() % 4000);
      for (std::byte& b : data.back()) b = static_cast<std::byte>(rng());
    }
    for (int i = 0; i < 8; ++i)
      groups.push_back(GroupOfBytes(i, data[static_cast<size_t>(i)], 512));
    SimStreamSpec spec;
    spec.ring = Bytes(static_cast<int64_t>(4352 + rng() % 16 * 256));
    spec.link = Bandwidth::GBPerSecond(1);
    spec.slots = 4;
    SimStreamDevice device(spec);
    SimChunkSource source(&device, Bandwidth());
    auto stream = WeightStream::Create(&device, &source, groups, {});
    ASSERT_TRUE(stream.ok());
    for (int pass = 0; pass < 20; ++pass) {
      std::vector<int> order;
      for (int g = 0; g < 8; ++g) {
        if (rng() % 8 != 0 || pass % 4 != 0) order.push_back(g);
      }
      ASSERT_TRUE((*stream)->BeginPass(order).ok());
      for (int g : order) {
        auto lease = (*stream)->Acquire(g, kTestTimeout);
        ASSERT_TRUE(lease.ok()) << lease.status();
        ASSERT_TRUE(lease->ComputeAfterArrival().ok());
        device.Compute(absl::Microseconds(2), lease->ring_offset(), data[static_cast<size_t>(g)]);
        ASSERT_TRUE(lease->Release().ok());
      }
      device.Synchronize();
    }
    EXPECT_EQ(device.wrong_reads(), 0);
  }
}

// Blocks until it is cancelled.
class StuckSource : public ChunkSource {
 public:
  bool Request(const StreamChunk& chunk) override { return true; }
  absl::StatusOr<HostChunk> Take(const StreamChunk& chunk, absl::Duration timeout) override {
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&cancelled_), timeout);
    return absl::CancelledError("stuck");
  }
  void Sent(int64_t copy) override {}
  void Copied(int64_t copies) override {}
  void Forget() override {}
  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }

 private:
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

TEST(WeightStreamRandomTest, CancelEndsAWaitingAcquire) {
  const std::vector<std::byte> bytes(1000);
  SimStreamSpec spec;
  spec.ring = 4096_B;
  spec.link = Bandwidth::GBPerSecond(1);
  SimStreamDevice device(spec);
  StuckSource source;
  auto stream = WeightStream::Create(&device, &source, {GroupOfBytes(0, bytes, 1000)}, {});
  ASSERT_TRUE(stream.ok());
  ASSERT_TRUE((*stream)->BeginPass({0}).ok());
  EXPECT_EQ((*stream)->Acquire(0, absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread canceller([&] {
    absl::SleepFor(absl::Milliseconds(20));
    (*stream)->Cancel();
  });
  EXPECT_EQ((*stream)->Acquire(0, absl::Seconds(60)).status().code(), absl::StatusCode::kCancelled);
  canceller.join();
  EXPECT_EQ((*stream)->BeginPass({0}).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace millrace
