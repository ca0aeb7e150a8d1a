// Shared by the tests of weight streaming: groups of random bytes on a simulated device.
#ifndef MILLRACE_TESTS_WORKER_STREAM_STREAM_TESTING_H_
#define MILLRACE_TESTS_WORKER_STREAM_STREAM_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/stream/sim_stream_device.h"
#include "worker/stream/weight_stream.h"

namespace millrace {

inline constexpr absl::Duration kTestTimeout = absl::Seconds(20);

// Group `index` of one matrix; `chunk` bytes cross the link at a time. The bytes outlive the group.
inline StreamGroup GroupOfBytes(int index, absl::Span<const std::byte> bytes, size_t chunk) {
  StreamGroup group;
  group.name = absl::StrCat("group", index);
  group.parts = {absl::StrCat("blk.", index, ".weight")};
  group.ring_bytes = Bytes(static_cast<int64_t>((bytes.size() + 255) / 256 * 256));
  for (size_t at = 0; at < bytes.size(); at += chunk) {
    StreamChunk c;
    c.group = index;
    c.bytes = bytes.subspan(at, std::min(chunk, bytes.size() - at));
    c.offset = Bytes(static_cast<int64_t>(at));
    group.chunks.push_back(c);
  }
  return group;
}

// A stream driven by the test on a simulated device.
struct SimStream {
  SimStream(const SimStreamSpec& spec, const std::vector<size_t>& sizes, size_t chunk,
            Bandwidth source_rate = Bandwidth(), uint64_t seed = 1)
      : device(spec), source(&device, source_rate) {
    std::mt19937_64 rng(seed);
    std::vector<StreamGroup> groups;
    for (size_t size : sizes) {
      data.emplace_back(size);
      for (std::byte& b : data.back()) b = static_cast<std::byte>(rng());
    }
    for (size_t i = 0; i < data.size(); ++i) {
      groups.push_back(GroupOfBytes(static_cast<int>(i), data[i], chunk));
    }
    WeightStreamOptions options;
    options.drive = WeightStreamOptions::Drive::kCaller;
    auto made = WeightStream::Create(&device, &source, std::move(groups), options);
    EXPECT_TRUE(made.ok()) << made.status();
    if (made.ok()) stream = *std::move(made);
  }

  absl::StatusOr<WeightLease> Acquire(int group) {
    auto lease = stream->Acquire(group, kTestTimeout);
    if (lease.ok()) {
      EXPECT_TRUE(lease->ComputeAfterArrival().ok());
    }
    return lease;
  }
  void Compute(const WeightLease& lease, absl::Duration time) {
    device.Compute(time, lease.ring_offset(), data[static_cast<size_t>(lease.group())]);
  }
  // One pass: each group of the order is computed with for `time`.
  void Queue(const std::vector<int>& order, absl::Duration time) {
    ASSERT_TRUE(stream->BeginPass(order).ok());
    for (int g : order) {
      auto lease = Acquire(g);
      ASSERT_TRUE(lease.ok()) << lease.status();
      Compute(*lease, time);
      ASSERT_TRUE(lease->Release().ok());
    }
  }
  // The virtual clock goes on to `time`, the walk with it.
  void RunUntil(absl::Time time) {
    while (device.Now() < time) {
      device.AdvanceTo(std::min(time, device.next_copy_end()));
      stream->Pump();
    }
  }
  void Finish() { RunUntil(device.compute_end()); }
  absl::Duration elapsed() const { return device.Now() - absl::UnixEpoch(); }

  std::vector<std::vector<std::byte>> data;
  SimStreamDevice device;
  SimChunkSource source;
  std::unique_ptr<WeightStream> stream;  // dies first
};

// Busy and stalled time are all the time there was.
inline void ExpectTimeAddsUp(const StreamStats& stats) {
  absl::Duration sum = stats.busy;
  for (const StreamStats::Stall& stall : stats.stalls) sum += stall.time;
  if (stats.copies > 0) {
    EXPECT_EQ(sum, stats.last_end - stats.first_begin);
  }
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_STREAM_STREAM_TESTING_H_
