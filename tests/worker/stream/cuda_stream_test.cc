// Weights streamed to a GPU: their tiles against those that WeightPool places, byte for byte.
#include "worker/stream/cuda_stream_device.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <thread>

#include "kernels/cuda/device_allocator.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/worker/stream/host_files.h"
#include "worker/backend/cuda/weight_pool.h"
#include "worker/stream/weight_stream.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);

struct Shape {
  DType dtype;
  int64_t rows, cols;
};

class CudaStreamTest : public DeviceTest {
 protected:
  // A file of random weights; each inner list is one group's matrices.
  void MakeFile(const std::string& folder, const std::vector<std::vector<Shape>>& groups) {
    std::vector<uint8_t> raw(96);  // matrices at no particular alignment
    std::vector<std::vector<size_t>> offsets;
    for (const auto& group : groups) {
      offsets.emplace_back();
      for (const Shape& s : group) {
        offsets.back().push_back(raw.size());
        const std::vector<uint8_t> bytes = RandomWeights(s.dtype, s.rows, s.cols, rng_);
        raw.insert(raw.end(), bytes.begin(), bytes.end());
      }
    }
    file_ = std::make_unique<MappedBytes>(folder, raw);
    for (size_t g = 0; g < groups.size(); ++g) {
      matrices_.emplace_back();
      for (size_t m = 0; m < groups[g].size(); ++m) {
        const Shape& s = groups[g][m];
        weights_.push_back(file_->Weight(absl::StrCat("g", g, ".m", m), s.dtype, s.rows, s.cols, offsets[g][m]));
        matrices_.back().push_back(weights_.back().tensor);
      }
      layouts_.push_back(LayOutGroup(matrices_.back()));
    }
  }

  std::vector<uint8_t> Read(const uint8_t* from, size_t size) const {
    std::vector<uint8_t> bytes(size);
    EXPECT_TRUE(cuda::CopyAsync(bytes.data(), from, Bytes(static_cast<int64_t>(size)), stream()).ok());
    Wait();
    return bytes;
  }

  static size_t SizeOf(const WeightTiles& t) {
    return static_cast<size_t>(TiledBytes(t.dtype, t.rows, t.cols).count());
  }

  // What WeightPool makes of each group's runs.
  void PlaceAll() {
    constexpr Bytes kStaging = 32_MiB;
    Bytes all;
    for (const GroupLayout& l : layouts_) all += l.bytes;
    auto staging = cuda::DeviceBuffer::Create(device_, kStaging);
    auto memory = cuda::DeviceBuffer::Create(device_, all);
    ASSERT_TRUE(staging.ok() && memory.ok());
    auto pool = WeightPool::Create(*std::move(memory), static_cast<std::byte*>(staging->data()), kStaging,
                                   stream());
    ASSERT_TRUE(pool.ok()) << pool.status();
    for (const auto& matrices : matrices_) {
      auto placed = pool->PlaceMatrices(matrices, {});
      ASSERT_TRUE(placed.ok()) << placed.status();
      placed_.push_back(*placed);
      expected_.emplace_back();
      for (const WeightRun& run : placed->runs) {
        expected_.back().push_back(Read(run.tiles.data, SizeOf(run.tiles)));
      }
    }
  }

  // A stream over all groups with a ring of `ring` bytes.
  void MakeStream(Bytes ring, const HostWeightsOptions& host_options, CudaStreamOptions options = {}) {
    // Pages are locked once at a time.
    stream_of_weights_.reset();
    receiver_.reset();
    host_.reset();
    auto host = HostWeights::Create(host_options, weights_);
    ASSERT_TRUE(host.ok()) << host.status();
    host_ = *std::move(host);
    std::vector<StreamGroup> groups;
    for (size_t g = 0; g < matrices_.size(); ++g) {
      auto group = MakeStreamGroup(static_cast<int>(g), matrices_[g], layouts_[g], options.chunk_bytes);
      ASSERT_TRUE(group.ok()) << group.status();
      groups.push_back(*std::move(group));
    }
    auto memory = cuda::DeviceBuffer::Create(device_, ring);
    auto staging = cuda::DeviceBuffer::Create(device_, options.staging_bytes());
    ASSERT_TRUE(memory.ok() && staging.ok());
    auto device = CudaStreamDevice::Create(options, stream(), *std::move(memory), *std::move(staging), layouts_);
    ASSERT_TRUE(device.ok()) << device.status();
    receiver_ = *std::move(device);
    auto made = WeightStream::Create(receiver_.get(), host_.get(), std::move(groups), {});
    ASSERT_TRUE(made.ok()) << made.status();
    stream_of_weights_ = *std::move(made);
  }

  Bytes LargestGroup() const {
    Bytes largest;
    for (const GroupLayout& l : layouts_) largest = std::max(largest, l.bytes);
    return largest;
  }

  // The bytes are copied out by the compute stream and compared once the pass is over.
  void RunPass(const std::vector<int>& order) {
    ASSERT_TRUE(stream_of_weights_->BeginPass(order).ok());
    std::vector<std::vector<std::vector<uint8_t>>> got;
    for (int g : order) {
      auto lease = stream_of_weights_->Acquire(g, kTimeout);
      ASSERT_TRUE(lease.ok()) << lease.status();
      ASSERT_TRUE(lease->ComputeAfterArrival().ok());
      const PlacedGroup placed = receiver_->Placed(g, lease->ring_offset());
      const PlacedGroup& expected = placed_[static_cast<size_t>(g)];
      ASSERT_EQ(placed.runs.size(), expected.runs.size());
      EXPECT_EQ(placed.rows, expected.rows);
      EXPECT_EQ(placed.part_rows, expected.part_rows);
      got.emplace_back();
      for (size_t r = 0; r < placed.runs.size(); ++r) {
        const WeightTiles& t = placed.runs[r].tiles;
        EXPECT_EQ(t.multiplier, expected.runs[r].tiles.multiplier);
        ASSERT_EQ(t.rows, expected.runs[r].tiles.rows);
        got.back().emplace_back(SizeOf(t));
        ASSERT_TRUE(cuda::CopyAsync(got.back().back().data(), t.data,
                                    Bytes(static_cast<int64_t>(SizeOf(t))), stream())
                        .ok());
      }
      ASSERT_TRUE(lease->Release().ok());
    }
    Wait();
    for (size_t i = 0; i < order.size(); ++i) {
      EXPECT_EQ(got[i], expected_[static_cast<size_t>(order[i])]) << "group " << order[i];
    }
  }

  std::vector<std::vector<Shape>> MixedGroups() {
    std::vector<std::vector<Shape>> groups;
    for (DType d : kAllDTypes) {
      const int64_t cols = 256 * Random(1, 12);
      // q, k, v alike; then gate and up where the first does not fill its tiles; then one alone.
      groups.push_back({{d, 16 * Random(1, 30), cols}, {d, 16 * Random(1, 9), cols}, {d, Random(1, 100), cols}});
      groups.push_back({{d, 16 * Random(1, 20) + Random(1, 15), cols}, {d, Random(1, 300), cols}});
      groups.push_back({{d, Random(1, 700), cols}});
    }
    groups.push_back({{DType::kQ4_K, 320, 512}, {DType::kQ6_K, 64, 512}, {DType::kQ4_K, 64, 512}});
    return groups;
  }

  HostWeightsOptions InPlace() const {
    HostWeightsOptions options;
    options.lock = CudaPageLocker(device_);
    return options;
  }

  std::unique_ptr<MappedBytes> file_;
  std::vector<HostWeight> weights_;
  std::vector<std::vector<HostTensor>> matrices_;
  std::vector<GroupLayout> layouts_;
  std::vector<PlacedGroup> placed_;
  std::vector<std::vector<std::vector<uint8_t>>> expected_;  // [group][run]
  std::unique_ptr<HostWeights> host_;
  std::unique_ptr<CudaStreamDevice> receiver_;
  std::unique_ptr<WeightStream> stream_of_weights_;
};

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
  MakeFile("/dev/shm", {{{DType::kQ4_K, 2048, 2048}}, {{DType::kF16, 512, 1024}}, {{DType::kQ6_K, 300, 512}}});
  PlaceAll();
  MakeStream(LargestGroup() * 2, InPlace());
  std::printf("/dev/shm: in place %s, copied %s %s\n", FormatBytes(host_->use().in_place).c_str(),
              FormatBytes(host_->use().copied).c_str(), host_->use().why_copied.c_str());
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass({0, 1, 2}));
  stream_of_weights_.reset();
  HostWeightsOptions copies = InPlace();
  copies.lock = [lock = CudaPageLocker(device_)](HostBytes pages, PageAccess access)
      -> absl::StatusOr<std::shared_ptr<void>> {
    if (access == PageAccess::kReadOnly) return absl::UnimplementedError("refused by the test");
    return lock(pages, access);
  };
  MakeStream(LargestGroup() * 2, copies);
  EXPECT_GT(host_->use().copied, Bytes(0));
  for (int pass = 0; pass < 3; ++pass) ASSERT_NO_FATAL_FAILURE(RunPass({0, 1, 2}));
}

TEST_F(CudaStreamTest, FromDisk) {
  MakeFile("/tmp", {{{DType::kQ4_K, 2048, 4096}}, {{DType::kF32, 512, 1024}}, {{DType::kQ8_0, 3000, 512}}});
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
  MakeFile("/tmp", {{{DType::kQ4_K, 4096, 4096}}, {{DType::kQ4_K, 4096, 4096}}, {{DType::kQ6_K, 4096, 4096}}});
  PlaceAll();
  for (int round = 0; round < 10; ++round) {
    CudaStreamOptions options;
    options.chunk_bytes = 1_MiB;
    MakeStream(LargestGroup(), InPlace(), options);
    ASSERT_TRUE(stream_of_weights_->BeginPass({0, 1, 2}).ok());
    std::thread canceller([&, wait = Random(0, 3000)] {
      absl::SleepFor(absl::Microseconds(wait));
      stream_of_weights_->Cancel();
    });
    absl::Status status;
    for (int pass = 0; status.ok() && pass < 1000; ++pass) {
      for (int g = 0; g < 3; ++g) {
        auto lease = stream_of_weights_->Acquire(g, kTimeout);
        status = lease.status();
        if (!status.ok()) break;
        EXPECT_TRUE(lease->ComputeAfterArrival().ok());
      }
      if (status.ok()) status = stream_of_weights_->BeginPass({0, 1, 2});
    }
    canceller.join();
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    const absl::Time begin = absl::Now();
    stream_of_weights_.reset();
    receiver_.reset();
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
    ASSERT_TRUE(stream_of_weights_->BeginPass({0, 1, 2, 3, 4, 5, 6, 7}).ok());
    for (int g = 0; g < 8; ++g) {
      auto lease = stream_of_weights_->Acquire(g, kTimeout);
      ASSERT_TRUE(lease.ok()) << lease.status();
      ASSERT_TRUE(lease->ComputeAfterArrival().ok());
    }
    Wait();
  }
  const absl::Duration took = absl::Now() - begin;
  const StreamStats stats = stream_of_weights_->stats();
  std::printf("%s in %s: %s; link idle %.1f%%; stalls: ring %s source %s idle %s thread %s\n",
              FormatBytes(stats.copied).c_str(), absl::FormatDuration(took).c_str(),
              FormatBandwidth(Bandwidth::BytesPerSecond(
                                  static_cast<double>(stats.copied.count()) / absl::ToDoubleSeconds(took)))
                  .c_str(),
              100 * stats.idle_share(), absl::FormatDuration(stats.stall(StreamStall::kRing).time).c_str(),
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
