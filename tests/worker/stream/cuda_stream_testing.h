// Shared by the tests of weights streamed to a GPU: groups of random matrices in a file, what
// WeightPool makes of them, and a stream over them.
#ifndef MILLRACE_TESTS_WORKER_STREAM_CUDA_STREAM_TESTING_H_
#define MILLRACE_TESTS_WORKER_STREAM_CUDA_STREAM_TESTING_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/worker/stream/host_files.h"
#include "worker/backend/cuda/weight_pool.h"
#include "worker/stream/cuda_weight_streamer.h"

namespace millrace {

inline constexpr absl::Duration kAcquireTimeout = absl::Seconds(20);

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
        weights_.push_back(
            file_->Weight(absl::StrCat("g", g, ".m", m), s.dtype, s.rows, s.cols, offsets[g][m]));
        matrices_.back().push_back(weights_.back().tensor);
      }
      layouts_.push_back(LayOutGroup(matrices_.back()));
    }
  }

  std::vector<uint8_t> Read(const uint8_t* from, size_t size) const {
    std::vector<uint8_t> bytes(size);
    EXPECT_TRUE(
        cuda::CopyAsync(bytes.data(), from, Bytes(static_cast<int64_t>(size)), stream()).ok());
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
    auto pool = WeightPool::Create(*std::move(memory), static_cast<std::byte*>(staging->data()),
                                   kStaging, stream());
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
  void MakeStream(Bytes ring, const HostWeightsOptions& host_options,
                  CudaStreamOptions options = {}) {
    // Pages are locked once at a time.
    streamer_.reset();
    host_.reset();
    auto host = HostWeights::Create(host_options, weights_);
    ASSERT_TRUE(host.ok()) << host.status();
    host_ = *std::move(host);
    std::vector<StreamedOp> ops;
    for (size_t g = 0; g < matrices_.size(); ++g) ops.push_back({matrices_[g], layouts_[g]});
    const Bytes budget = RoundUp(ring, 2_MiB) + RoundUp(options.staging_bytes(), 2_MiB);
    auto allocator = cuda::DeviceAllocator::Create(device_, budget, Bytes(0));
    ASSERT_TRUE(allocator.ok()) << allocator.status();
    auto made = CudaWeightStreamer::Create(options, *allocator, ring, stream(), host_.get(),
                                           std::move(ops));
    ASSERT_TRUE(made.ok()) << made.status();
    streamer_ = *std::move(made);
  }

  Bytes LargestGroup() const {
    Bytes largest;
    for (const GroupLayout& l : layouts_) largest = std::max(largest, l.bytes);
    return largest;
  }

  // The bytes are copied out by the compute stream and compared once the pass is over.
  void RunPass(const std::vector<int>& order) {
    ASSERT_TRUE(streamer_->BeginPass(order).ok());
    std::vector<std::vector<std::vector<uint8_t>>> got;
    for (int g : order) {
      auto weights = streamer_->Acquire(g, stream(), kAcquireTimeout);
      ASSERT_TRUE(weights.ok()) << weights.status();
      const PlacedGroup& placed = weights->group;
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
      ASSERT_TRUE(weights->lease.Release().ok());
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
      groups.push_back(
          {{d, 16 * Random(1, 30), cols}, {d, 16 * Random(1, 9), cols}, {d, Random(1, 100), cols}});
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
  std::unique_ptr<CudaWeightStreamer> streamer_;
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_STREAM_CUDA_STREAM_TESTING_H_
