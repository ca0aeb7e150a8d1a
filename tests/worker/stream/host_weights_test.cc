// Host weights in place, copied, and on disk, and all three streamed to a simulated device.
#include "worker/stream/host_weights.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <random>

#include "proto/stream_layout.h"
#include "tests/worker/stream/host_files.h"
#include "tests/worker/stream/stream_testing.h"
#include "worker/stream/probe_disk.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr Bytes kChunk = 16_KiB;

// Tensors of odd sizes at odd places.
class HostWeightsTest : public ::testing::Test {
 protected:
  void Make(const std::string& folder, int tensors = 6) {
    std::mt19937_64 rng(7);
    std::vector<uint8_t> raw(1000);
    std::vector<size_t> offsets, sizes;
    for (int i = 0; i < tensors; ++i) {
      offsets.push_back(raw.size());
      sizes.push_back(20000 + rng() % 60000);
      raw.resize(raw.size() + sizes.back() + rng() % 20000);
    }
    for (uint8_t& b : raw) b = static_cast<uint8_t>(rng());
    file_ = std::make_unique<MappedBytes>(folder, raw);
    for (int i = 0; i < tensors; ++i) {
      const auto at = static_cast<size_t>(i);
      weights_.push_back(file_->Weight(absl::StrCat("t", i), DType::kF16, 1,
                                       static_cast<int64_t>(sizes[at] / 2), offsets[at]));
    }
  }

  HostWeightsOptions Options() const {
    HostWeightsOptions options;
    options.disk.max_read = kChunk;
    options.disk.buffers = 3;
    options.disk.readers = 2;
    return options;
  }

  Bytes Pages() const {
    std::vector<HostBytes> all;
    for (const HostWeight& w : weights_) all.push_back(w.tensor.bytes);
    Bytes sum;
    for (const HostBytes& p : WholePages(all)) sum += Bytes(static_cast<int64_t>(p.size()));
    return sum;
  }

  std::vector<StreamGroup> Groups() const {
    std::vector<StreamGroup> groups;
    for (size_t i = 0; i < weights_.size(); ++i) {
      groups.push_back(GroupOfBytes(static_cast<int>(i), weights_[i].tensor.bytes,
                                    static_cast<size_t>(kChunk.count())));
    }
    return groups;
  }

  // Several passes over everything, each byte checked on its arrival.
  void Stream(HostWeights& source, WeightStreamOptions::Drive drive) {
    SimStreamSpec spec;
    spec.ring = 200_KiB;
    spec.link = Bandwidth::GBPerSecond(10);
    SimStreamDevice device(spec);
    WeightStreamOptions options;
    options.drive = drive;
    auto stream = WeightStream::Create(&device, &source, Groups(), options);
    ASSERT_TRUE(stream.ok()) << stream.status();
    std::vector<int> order;
    for (size_t i = 0; i < weights_.size(); ++i) order.push_back(static_cast<int>(i));
    for (int pass = 0; pass < 4; ++pass) {
      if (pass == 2) std::swap(order[0], order[1]);
      ASSERT_TRUE((*stream)->BeginPass(order).ok());
      for (int g : order) {
        // The disk's buffers come back as virtual time goes on.
        if (drive == WeightStreamOptions::Drive::kThread)
          device.AdvanceTo(device.Now() + absl::Seconds(1));
        auto lease = (*stream)->Acquire(g, kTestTimeout);
        ASSERT_TRUE(lease.ok()) << lease.status();
        ASSERT_TRUE(lease->ComputeAfterArrival().ok());
        device.Compute(absl::Microseconds(5), lease->ring_offset(),
                       weights_[static_cast<size_t>(g)].tensor.bytes);
      }
      device.Synchronize();
    }
    EXPECT_EQ(device.wrong_reads(), 0);
  }

  std::unique_ptr<MappedBytes> file_;
  std::vector<HostWeight> weights_;
};

PageLocker RefuseReadOnly() {
  return [](HostBytes, PageAccess access) -> absl::StatusOr<std::shared_ptr<void>> {
    if (access == PageAccess::kReadOnly) return absl::UnimplementedError("old driver");
    return std::shared_ptr<void>();
  };
}

TEST_F(HostWeightsTest, InPlaceNothingIsCopied) {
  Make(::testing::TempDir());
  std::vector<Bytes> done;
  HostWeightsOptions options = Options();
  options.progress = [&](Bytes d, Bytes all) {
    EXPECT_EQ(all, Pages());
    done.push_back(d);
  };
  auto host = HostWeights::Create(options, weights_);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ((*host)->use().in_place, Pages());
  EXPECT_EQ((*host)->use().memory(), Pages());
  ASSERT_FALSE(done.empty());
  EXPECT_EQ(done.back(), Pages());
  const StreamGroup group = Groups()[2];
  for (const StreamChunk& chunk : group.chunks) {
    ASSERT_TRUE((*host)->Request(chunk));
    const auto taken = (*host)->Take(chunk, kTestTimeout);
    ASSERT_TRUE(taken.ok());
    EXPECT_EQ(taken->data, chunk.bytes.data());
  }
  Stream(**host, WeightStreamOptions::Drive::kCaller);
}

TEST_F(HostWeightsTest, PagesThatCannotBeLockedAreCopied) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  options.lock = RefuseReadOnly();
  options.memory_budget = Pages();
  auto host = HostWeights::Create(options, weights_);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ((*host)->use().in_place, Bytes(0));
  EXPECT_EQ((*host)->use().copied, Pages());
  EXPECT_EQ((*host)->use().why_copied, "old driver");
  for (const HostWeight& w : weights_) {
    const HostBytes copy = (*host)->BytesOf(w.tensor.bytes);
    EXPECT_NE(copy.data(), w.tensor.bytes.data());
    EXPECT_TRUE(std::equal(copy.begin(), copy.end(), w.tensor.bytes.begin(), w.tensor.bytes.end()));
  }
  Stream(**host, WeightStreamOptions::Drive::kThread);
}

TEST_F(HostWeightsTest, CopiesThatCannotBeLockedAreAnError) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  options.lock = CudaPageLocker(1000);  // no such device, or no CUDA in this build
  EXPECT_FALSE(HostWeights::Create(options, weights_).ok());
}

TEST_F(HostWeightsTest, BudgetIsEnforced) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  options.memory_budget = Pages() - 1_B;
  const absl::Status refused = HostWeights::Create(options, weights_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), HasSubstr(FormatBytes(options.memory_budget)));
  options.memory_budget = Pages();
  EXPECT_TRUE(HostWeights::Create(options, weights_).ok());
  // The buffers alone are more than this.
  options.memory_budget = 4_KiB;
  options.beyond = HostWeightsOptions::Beyond::kDisk;
  EXPECT_EQ(HostWeights::Create(options, weights_).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(HostWeightsTest, WhatPassesTheBudgetIsReadFromDisk) {
  for (const bool direct : {true, false}) {
    for (const char* folder : {"/tmp", "/dev/shm"}) {
      if (access(folder, W_OK) != 0) continue;
      SCOPED_TRACE(absl::StrCat(folder, direct ? ", direct" : ", buffered"));
      weights_.clear();
      Make(folder);
      HostWeightsOptions options = Options();
      options.disk.direct = direct;
      options.beyond = HostWeightsOptions::Beyond::kDisk;
      options.memory_budget = DiskReader::MemoryFor(options.disk) + Bytes(Pages().count() / 3);
      auto host = HostWeights::Create(options, weights_);
      ASSERT_TRUE(host.ok()) << host.status();
      EXPECT_GT((*host)->use().disk, Bytes(0));
      EXPECT_GT((*host)->use().in_place, Bytes(0));
      EXPECT_LE((*host)->use().memory(), options.memory_budget);
      Stream(**host, WeightStreamOptions::Drive::kCaller);
      host = HostWeights::Create(options, weights_);  // a cancelled one stays cancelled
      ASSERT_TRUE(host.ok());
      Stream(**host, WeightStreamOptions::Drive::kThread);
    }
  }
}

TEST_F(HostWeightsTest, WhatIsToStayOnDiskTakesNoMemory) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  for (size_t i = 0; i < weights_.size(); i += 2) weights_[i].on_disk = true;
  auto host = HostWeights::Create(options, weights_);
  ASSERT_TRUE(host.ok()) << host.status();
  Bytes disk;
  for (size_t i = 0; i < weights_.size(); i += 2) {
    disk += Bytes(static_cast<int64_t>(weights_[i].tensor.bytes.size()));
  }
  EXPECT_EQ((*host)->use().disk, disk);
  EXPECT_EQ((*host)->use().disk_buffers, DiskReader::MemoryFor(options.disk));
  Stream(**host, WeightStreamOptions::Drive::kCaller);
  weights_[0].path.clear();
  const absl::Status refused = HostWeights::Create(options, weights_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("t0"));
  EXPECT_EQ(DiskReader::MemoryFor({}), kDiskStaging) << "what plans count";
}

TEST_F(HostWeightsTest, DiskBuffersAreBounded) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  options.beyond = HostWeightsOptions::Beyond::kDisk;
  options.memory_budget = DiskReader::MemoryFor(options.disk);
  auto host = HostWeights::Create(options, weights_);
  ASSERT_TRUE(host.ok()) << host.status();
  std::vector<StreamChunk> chunks;
  for (const StreamGroup& g : Groups())
    chunks.insert(chunks.end(), g.chunks.begin(), g.chunks.end());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE((*host)->Request(chunks[static_cast<size_t>(i)]));
  EXPECT_FALSE((*host)->Request(chunks[3]));
  ASSERT_TRUE((*host)->Take(chunks[0], kTestTimeout).ok());
  (*host)->Sent(0);
  EXPECT_FALSE((*host)->Request(chunks[3]));
  (*host)->Copied(0);  // none yet
  EXPECT_FALSE((*host)->Request(chunks[3]));
  (*host)->Copied(1);
  EXPECT_TRUE((*host)->Request(chunks[3]));
  (*host)->Forget();
  for (int i = 0; i < 100 && !(*host)->Request(chunks[4]); ++i)
    absl::SleepFor(absl::Milliseconds(10));
  const auto taken = (*host)->Take(chunks[4], kTestTimeout);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(std::memcmp(taken->data, chunks[4].bytes.data(), chunks[4].bytes.size()), 0);
  (*host)->Cancel();
  EXPECT_TRUE((*host)->Request(chunks[0]));
  EXPECT_EQ((*host)->Take(chunks[0], kTestTimeout).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(HostWeightsTest, FileThatBecameShorterIsDataLoss) {
  Make(::testing::TempDir());
  HostWeightsOptions options = Options();
  options.beyond = HostWeightsOptions::Beyond::kDisk;
  options.memory_budget = DiskReader::MemoryFor(options.disk);
  for (const bool direct : {true, false}) {
    options.disk.direct = direct;
    auto host = HostWeights::Create(options, weights_);
    ASSERT_TRUE(host.ok()) << host.status();
    ASSERT_EQ(truncate(file_->path().c_str(), 10000), 0);
    const StreamGroup group = Groups()[0];
    ASSERT_TRUE((*host)->Request(group.chunks[0]));
    const absl::Status lost = (*host)->Take(group.chunks[0], kTestTimeout).status();
    EXPECT_EQ(lost.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(lost.message(), HasSubstr(file_->path()));
  }
}

TEST(WholePagesTest, RangesThatShareOrTouchPagesAreJoined) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto memory = *AnonymousMemory::Create(Bytes(static_cast<int64_t>(8 * page)));
  const HostBytes all = memory.bytes();
  const std::vector<HostBytes> joined =
      WholePages({all.subspan(5 * page + 10, 20), all.subspan(10, 20), all.subspan(100, page),
                  all.subspan(2 * page, 1)});
  ASSERT_EQ(joined.size(), 2u);
  EXPECT_EQ(joined[0].data(), all.data());
  EXPECT_EQ(joined[0].size(), 3 * page);
  EXPECT_EQ(joined[1].data(), all.data() + 5 * page);
  EXPECT_EQ(joined[1].size(), page);
}

TEST(ProbeDiskTest, ReadsTheFileOrNamesIt) {
  const absl::StatusOr<Bandwidth> disk = ProbeDisk("deploy/models/quill-7m-f16.gguf");
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_GT(disk->bytes_per_second(), 1e6);
  const absl::Status missing = ProbeDisk("deploy/models/nothing.gguf").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), ::testing::HasSubstr("nothing.gguf"));
}

}  // namespace
}  // namespace millrace
