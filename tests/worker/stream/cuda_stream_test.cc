// Weights streamed to a GPU: their tiles against those that WeightPool places, byte for byte.
#include <unistd.h>

#include <cstdio>
#include <deque>
#include <thread>

#include "tests/worker/stream/cuda_stream_testing.h"
#include "worker/tensor_slices.h"

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

// Some columns of each matrix, copied row by row out of the whole one.
class CudaSliceTest : public CudaStreamTest {
 protected:
  // Columns [cut, end) of whole_ are what streams.
  void CutAt(int64_t cut) {
    if (whole_.empty()) whole_ = matrices_;
    for (size_t g = 0; g < whole_.size(); ++g) {
      const HostTensor& m = whole_[g][0];
      matrices_[g] = {slices_.Columns(m, cut, m.spec->cols())};
      layouts_[g] = LayOutGroup(matrices_[g]);
    }
  }
  // What WeightPool makes of the same columns without gaps.
  void PlacePacked() {
    const std::vector<std::vector<HostTensor>> slices = matrices_;
    for (std::vector<HostTensor>& group : matrices_) {
      HostTensor& m = group[0];
      const int64_t row = RowBytes(m.spec->dtype, m.spec->cols()).count();
      std::vector<std::byte>& bytes = packed_.emplace_back();
      for (int64_t r = 0; r < m.spec->rows(); ++r) {
        const std::byte* from = m.bytes.data() + r * m.row_stride.count();
        bytes.insert(bytes.end(), from, from + row);
      }
      m.bytes = bytes;
      m.row_stride = Bytes(0);
    }
    PlaceAll();
    matrices_ = slices;
  }
  double GigabytesPerSecond(const std::vector<int>& order) {
    const StreamStats before = streamer_->stream().stats();
    const absl::Time begin = absl::Now();
    for (int pass = 0; pass < 10; ++pass) {
      EXPECT_TRUE(streamer_->BeginPass(order).ok());
      for (int g : order) {
        auto lease = streamer_->Acquire(g, stream(), kAcquireTimeout);
        EXPECT_TRUE(lease.ok()) << lease.status();
      }
      Wait();
    }
    const Bytes copied = streamer_->stream().stats().copied - before.copied;
    return static_cast<double>(copied.count()) / absl::ToDoubleSeconds(absl::Now() - begin) / 1e9;
  }

  TensorSlices slices_{TensorSlices::Use::kDevice};
  std::vector<std::vector<HostTensor>> whole_;
  std::deque<std::vector<std::byte>> packed_;
};

TEST_F(CudaSliceTest, TilesOfColumnsAreThoseOfTheColumnsAlone) {
  std::vector<std::vector<Shape>> groups;
  for (DType d : kAllDTypes) groups.push_back({{d, 700, 2048}});
  MakeFile("/tmp", groups);
  CutAt(768);
  PlacePacked();
  CudaStreamOptions options;
  options.chunk_bytes = 256_KiB;
  MakeStream(RoundUp(LargestGroup() * 3, 256_B), InPlace(), options);
  std::vector<int> order;
  for (int g = 0; g < static_cast<int>(layouts_.size()); ++g) order.push_back(g);
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass(order));
}

// Not a test of speed, but what it prints says where blocks are best cut: a Q6_K block of 256 columns
// is 210 bytes, of which eight are a multiple of 16.
TEST_F(CudaSliceTest, ColumnsStreamNearTheLinksRate) {
  std::vector<std::vector<Shape>> groups;
  for (int g = 0; g < 3; ++g) groups.push_back({{DType::kQ4_K, 2048, 28672}});
  for (int g = 0; g < 3; ++g) groups.push_back({{DType::kQ6_K, 2048, 28672}});
  MakeFile("/tmp", groups);
  const Bytes ring = LargestGroup() * 3;
  for (const int64_t cut : {0, 256, 1024, 2048, 8192, 15360, 16384, 24576, 27648}) {
    CutAt(cut);
    MakeStream(ring, InPlace());
    const double q4 = GigabytesPerSecond({0, 1, 2}), q6 = GigabytesPerSecond({3, 4, 5});
    std::printf("columns from %5lld on: Q4_K %.1f GB/s, Q6_K %.1f GB/s\n",
                static_cast<long long>(cut), q4, q6);
  }
}

}  // namespace
}  // namespace millrace
