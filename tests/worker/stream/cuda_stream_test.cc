// Weights streamed to a GPU: their tiles against those that WeightPool places, byte for byte.
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "tests/worker/stream/cuda_stream_testing.h"

namespace millrace {
namespace {

TEST_F(CudaStreamTest, TilesAreThoseOfWeightPool) {
  MakeFile("/tmp", MixedGroups());
  PlaceAll();
  CudaStreamOptions options;
  options.chunk_bytes = 256_KiB;  // several chunks to a matrix
  MakeStream(RoundUp(LargestGroup() * 3, 256_B), InPlace(), options);
  std::printf("in place %s, copied %s %s\n", FormatBytes(host_->use().in_place).c_str(),
              FormatBytes(host_->use().copied).c_str(), host_->use().why_copied.c_str());
  std::vector<int> order;
  for (int g = 0; g < static_cast<int>(layouts_.size()); ++g) order.push_back(g);
  for (int pass = 0; pass < 6; ++pass) {
    if (pass >= 3) std::shuffle(order.begin(), order.end(), rng_);
    if (pass == 4) order.resize(order.size() / 2);
    ASSERT_NO_FATAL_FAILURE(RunPass(order));
  }
}

TEST_F(CudaStreamTest, RingOfOneGroupWorks) {
  MakeFile("/tmp", MixedGroups());
  PlaceAll();
  CudaStreamOptions options;
  options.chunk_bytes = 256_KiB;
  options.stages = 1;
  options.slots = 2;
  options.max_queued_copies = 2;
  MakeStream(LargestGroup(), InPlace(), options);
  std::vector<int> order;
  for (int g = 0; g < static_cast<int>(layouts_.size()); ++g) order.push_back(g);
  for (int pass = 0; pass < 2; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass(order));
}

TEST_F(CudaStreamTest, SharedMemoryFilesAndForcedCopies) {
  if (access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm";
  MakeFile("/dev/shm",
           {{{DType::kQ4_K, 2048, 2048}}, {{DType::kF16, 512, 1024}}, {{DType::kQ6_K, 300, 512}}});
  PlaceAll();
  MakeStream(LargestGroup() * 2, InPlace());
  std::printf("/dev/shm: in place %s, copied %s %s\n", FormatBytes(host_->use().in_place).c_str(),
              FormatBytes(host_->use().copied).c_str(), host_->use().why_copied.c_str());
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass({0, 1, 2}));
  streamer_.reset();
  HostWeightsOptions copies = InPlace();
  copies.lock = [lock = CudaPageLocker(device_)](
                    HostBytes pages, PageAccess access) -> absl::StatusOr<std::shared_ptr<void>> {
    if (access == PageAccess::kReadOnly) return absl::UnimplementedError("refused by the test");
    return lock(pages, access);
  };
  MakeStream(LargestGroup() * 2, copies);
  EXPECT_GT(host_->use().copied, Bytes(0));
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass({0, 1, 2}));
}

TEST_F(CudaStreamTest, FromDisk) {
  MakeFile("/tmp",
           {{{DType::kQ4_K, 2048, 4096}}, {{DType::kF32, 512, 1024}}, {{DType::kQ8_0, 3000, 512}}});
  PlaceAll();
  CudaStreamOptions options;
  options.chunk_bytes = 512_KiB;
  HostWeightsOptions disk = InPlace();
  disk.disk.max_read = options.chunk_bytes;
  disk.disk.buffers = 4;
  disk.beyond = HostWeightsOptions::Beyond::kDisk;
  disk.memory_budget = DiskReader::MemoryFor(disk.disk);
  MakeStream(LargestGroup() * 2, disk, options);
  EXPECT_EQ(host_->use().in_place, Bytes(0));
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass({0, 1, 2}));
  ASSERT_NO_FATAL_FAILURE(RunPass({2, 0}));
}

TEST_F(CudaStreamTest, CancelInTheMiddle) {
  MakeFile(
      "/tmp",
      {{{DType::kQ4_K, 4096, 4096}}, {{DType::kQ4_K, 4096, 4096}}, {{DType::kQ6_K, 4096, 4096}}});
  PlaceAll();
  for (int round = 0; round < 10; ++round) {
    CudaStreamOptions options;
    options.chunk_bytes = 1_MiB;
    MakeStream(LargestGroup(), InPlace(), options);
    ASSERT_TRUE(streamer_->BeginPass({0, 1, 2}).ok());
    std::thread canceller([&, wait = Random(0, 3000)] {
      absl::SleepFor(absl::Microseconds(wait));
      streamer_->stream().Cancel();
    });
    absl::Status status;
    for (int pass = 0; status.ok() && pass < 1000; ++pass) {
      for (int g = 0; g < 3; ++g) {
        auto lease = streamer_->Acquire(g, stream(), kAcquireTimeout);
        status = lease.status();
        if (!status.ok()) break;
      }
      if (status.ok()) status = streamer_->BeginPass({0, 1, 2});
    }
    canceller.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    const absl::Time begin = absl::Now();
    streamer_.reset();
    EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  }
}

// Not a test of speed, but what it prints should be near the link's rate.
TEST_F(CudaStreamTest, LinkIsBusyAcrossPasses) {
  std::vector<std::vector<Shape>> groups;
  for (int g = 0; g < 8; ++g) groups.push_back({{DType::kQ4_K, 8192, 8192}});
  MakeFile("/tmp", groups);
  PlaceAll();
  MakeStream(LargestGroup() * 3, InPlace());
  // No host reads in the pass: the compute stream only passes the groups on.
  const absl::Time begin = absl::Now();
  for (int pass = 0; pass < 20; ++pass) {
    ASSERT_TRUE(streamer_->BeginPass({0, 1, 2, 3, 4, 5, 6, 7}).ok());
    for (int g = 0; g < 8; ++g) {
      auto lease = streamer_->Acquire(g, stream(), kAcquireTimeout);
      ASSERT_TRUE(lease.ok()) << lease.status();
    }
    Wait();
  }
  const absl::Duration took = absl::Now() - begin;
  const StreamStats stats = streamer_->stream().stats();
  std::printf("%s in %s: %s; link idle %.1f%%; stalls: ring %s source %s idle %s thread %s\n",
              FormatBytes(stats.copied).c_str(), absl::FormatDuration(took).c_str(),
              FormatBandwidth(Bandwidth::BytesPerSecond(static_cast<double>(stats.copied.count()) /
                                                        absl::ToDoubleSeconds(took)))
                  .c_str(),
              100 * stats.idle_share(),
              absl::FormatDuration(stats.stall(StreamStall::kRing).time).c_str(),
              absl::FormatDuration(stats.stall(StreamStall::kSource).time).c_str(),
              absl::FormatDuration(stats.stall(StreamStall::kIdle).time).c_str(),
              absl::FormatDuration(stats.stall(StreamStall::kThread).time).c_str());
  EXPECT_EQ(stats.drops, 0);
  EXPECT_GE(stats.groups, 160);
  EXPECT_LT(stats.idle_share(), 0.5);
  // Times are the host's clock.
  EXPECT_GT(stats.first_begin, begin - absl::Milliseconds(50));
  EXPECT_LT(stats.last_end, absl::Now() + absl::Milliseconds(50));
}

}  // namespace
}  // namespace millrace
