// Dense products, graphs and the allocator. Tests of DeviceAllocatorTest need no GPU.
#include <gtest/gtest.h>

#include <thread>

#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/device_allocator.h"
#include "kernels/cuda/graph.h"
#include "kernels/elementwise_cuda.h"
#include "proto/status_macros.h"
#include "tests/kernels/device_testing.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

using cuda::DeviceAllocator;
using cuda::GemmEngine;
using cuda::Graph;

static_assert(!std::is_copy_constructible_v<Graph> && std::is_move_constructible_v<Graph>);
static_assert(!std::is_copy_constructible_v<GemmEngine> &&
              std::is_move_constructible_v<GemmEngine>);

TEST(DeviceAllocatorTest, RefusesWhatPassesTheBudgetBeforeAnyCudaCall) {
  auto allocator = DeviceAllocator::Create(3, 16_MiB, 5_MiB);
  ASSERT_TRUE(allocator.ok()) << allocator.status();
  for (Bytes size : {12_MiB, 11_MiB + 1_B, 10_MiB + 1_B, Bytes(INT64_MAX)}) {
    const auto buffer = allocator->Allocate(size, "the key cache");
    EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted) << buffer.status();
    for (const char* part : {"gpu3", "the key cache", "16.0 MiB", "5.00 MiB", "0 B"}) {
      EXPECT_NE(std::string(buffer.status().message()).find(part), std::string::npos)
          << part << " in: " << buffer.status();
    }
  }
  EXPECT_EQ(allocator->used(), Bytes(0));
}

TEST(DeviceAllocatorTest, FailedAllocationCountsNothing) {
  auto allocator = DeviceAllocator::Create(9999, 16_MiB, Bytes(0));
  ASSERT_TRUE(allocator.ok()) << allocator.status();
  const auto buffer = allocator->Allocate(1_MiB, "scratch");
  ASSERT_FALSE(buffer.ok());
  EXPECT_NE(buffer.status().code(), absl::StatusCode::kOk);
  EXPECT_EQ(std::string(buffer.status().message()).rfind("scratch: ", 0), 0u) << buffer.status();
  EXPECT_EQ(allocator->used(), Bytes(0));
}

TEST(DeviceAllocatorTest, OverheadIsWithinTheBudget) {
  EXPECT_EQ(DeviceAllocator::Create(0, 1_MiB, 2_MiB).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DeviceAllocator::Create(0, 1_MiB, Bytes(-1)).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(DeviceAllocator::Create(0, 1_MiB, 1_MiB).ok());
}

TEST(DeviceAllocatorTest, AccountIsExactUnderContention) {
  cuda::MemoryAccount account(Bytes(1000), Bytes(100));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&account] {
      for (int i = 0; i < 20000; ++i) {
        if (account.Take(Bytes(300))) account.GiveBack(Bytes(300));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(account.used(), Bytes(0));
  EXPECT_TRUE(account.Take(Bytes(900)));
  EXPECT_FALSE(account.Take(Bytes(1)));
}

class GemmCudaTest : public DeviceTest {
 protected:
  std::vector<uint16_t> RandomHalves(size_t n) {
    std::vector<uint16_t> halves;
    for (float f : RandomFloats(n, rng_)) halves.push_back(FloatToHalf(f));
    return halves;
  }

  void MakeEngine() {
    workspace_.emplace(Poisoned<uint8_t>(static_cast<size_t>(GemmEngine::kWorkspace.count())));
    auto engine = GemmEngine::Create(device_, workspace_->as(), GemmEngine::kWorkspace);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_.emplace(*std::move(engine));
  }

  void Check(int64_t n, int64_t k, int64_t rows, int64_t pad, bool accumulate) {
    const int64_t ldx = k + pad, ldw = k + 2 * pad, ldy = rows + pad;
    const std::vector<uint16_t> x = RandomHalves(static_cast<size_t>(n * ldx));
    const std::vector<uint16_t> w = RandomHalves(static_cast<size_t>(rows * ldw));
    const std::vector<float> before =
        accumulate ? RandomFloats(static_cast<size_t>(n * ldy), rng_)
                   : std::vector<float>(static_cast<size_t>(n * ldy), std::nanf(""));
    const auto dx = Upload(x), dw = Upload(w);
    const auto dy = Upload(before);
    const std::string what = absl::StrCat(n, " x ", k, " x ", rows, " pad ", pad);
    const absl::Status status = engine_->Gemm(dx.as<__half>(), n, k, ldx, dw.as<__half>(), rows,
                                              ldw, 1.0f, dy.as(), ldy, accumulate, stream());
    ASSERT_TRUE(status.ok()) << what << ": " << status;
    const std::vector<float> y = Download(dy);
    std::vector<float> got, want;
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t c = 0; c < ldy; ++c) {
        const size_t at = static_cast<size_t>(r * ldy + c);
        if (c >= rows) {
          ASSERT_EQ(FloatToBits(y[at]), FloatToBits(before[at])) << what << ": between rows";
          continue;
        }
        double sum = accumulate ? before[at] : 0.0;
        for (int64_t i = 0; i < k; ++i) {
          sum += static_cast<double>(HalfToFloat(x[static_cast<size_t>(r * ldx + i)])) *
                 HalfToFloat(w[static_cast<size_t>(c * ldw + i)]);
        }
        got.push_back(y[at]);
        want.push_back(static_cast<float>(sum));
      }
    }
    EXPECT_LT(RelativeError(got, want), 2e-5) << what;
  }

  std::optional<DeviceArray<uint8_t>> workspace_;
  std::optional<GemmEngine> engine_;
};

TEST_F(GemmCudaTest, GemmAgreesWithReference) {
  ASSERT_NO_FATAL_FAILURE(MakeEngine());
  const int64_t shapes[][3] = {{1, 8, 1},      {1, 64, 64},     {3, 72, 40},
                               {17, 136, 65},  {128, 512, 384}, {5, 4096, 1000},
                               {33, 1000, 77}, {0, 8, 8},       {2, 8, 0}};
  for (const auto& [n, k, rows] : shapes) {
    for (int64_t pad : {0, 8}) {
      for (bool accumulate : {false, true}) Check(n, k, rows, pad, accumulate);
    }
  }
}

TEST_F(GemmCudaTest, GemmTakesOddShapesAndStrides) {
  ASSERT_NO_FATAL_FAILURE(MakeEngine());
  const int64_t shapes[][3] = {{1, 7, 3}, {17, 129, 65}, {5, 333, 1001}};
  for (const auto& [n, k, rows] : shapes) {
    for (int64_t pad : {0, 1, 5}) {
      for (bool accumulate : {false, true}) Check(n, k, rows, pad, accumulate);
    }
  }
}

TEST_F(GemmCudaTest, GemmRepeatsItsBits) {
  ASSERT_NO_FATAL_FAILURE(MakeEngine());
  constexpr int64_t kN = 4, kK = 4096, kRows = 512;
  const auto x = Upload(RandomHalves(kN * kK)), w = Upload(RandomHalves(kRows * kK));
  const auto y = Poisoned<float>(kN * kRows);
  std::vector<float> first;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(engine_
                    ->Gemm(x.as<__half>(), kN, kK, kK, w.as<__half>(), kRows, kK, 1.0f, y.as(), kRows,
                           false, stream())
                    .ok());
    const std::vector<float> got = Download(y);
    if (i == 0) first = got;
    EXPECT_EQ(got, first);
  }
}

// x to f16, times w, plus bias: kernels that overlap and a library's, in one graph.
TEST_F(GemmCudaTest, GraphReplaysOnWhatDeviceMemoryHolds) {
  ASSERT_NO_FATAL_FAILURE(MakeEngine());
  constexpr int64_t kN = 3, kK = 256, kRows = 128;
  const std::vector<uint16_t> w = RandomHalves(kRows * kK);
  const auto dw = Upload(w);
  const auto x = Poisoned<float>(kN * kK), y = Poisoned<float>(kN * kRows);
  const auto half = Poisoned<uint16_t>(kN * kK);
  const auto bias = Upload(RandomFloats(kRows, rng_));
  auto issue = [&]() -> absl::Status {
    MILLRACE_RETURN_IF_ERROR(cuda::FloatToHalf(x.as(), kK, kN, kK, half.as<__half>(), stream()));
    MILLRACE_RETURN_IF_ERROR(engine_->Gemm(half.as<__half>(), kN, kK, kK, dw.as<__half>(), kRows,
                                           kK, 1.0f, y.as(), kRows, false, stream()));
    return cuda::AddBias(y.as(), kRows, kN, kRows, bias.as(), stream());
  };
  Overwrite(x, RandomFloats(kN * kK, rng_));
  ASSERT_TRUE(issue().ok());
  const std::vector<float> eager = Download(y);
  const std::vector<float> untouched(kN * kRows, -1.0f);
  Overwrite(y, untouched);
  auto graph = Graph::Capture(stream(), issue);
  ASSERT_TRUE(graph.ok()) << graph.status();
  Graph moved = *std::move(graph);
  EXPECT_EQ(Download(y), untouched) << "capture ran the work";
  for (int i = 0; i < 4; ++i) {
    Overwrite(x, RandomFloats(kN * kK, rng_));
    ASSERT_TRUE(issue().ok());
    const std::vector<float> want = Download(y);
    EXPECT_NE(want, eager);
    Overwrite(y, untouched);
    ASSERT_TRUE(moved.Launch(stream()).ok());
    ASSERT_TRUE(moved.Launch(stream()).ok());
    EXPECT_EQ(Download(y), want);
  }
}

TEST_F(GemmCudaTest, FailedCaptureLeavesTheStreamUsable) {
  const auto x = Upload(std::vector<float>{1, 2, 3, 4});
  const auto half = Poisoned<uint16_t>(4);
  auto convert = [&] { return cuda::FloatToHalf(x.as(), 4, 1, 4, half.as<__half>(), stream()); };
  ASSERT_TRUE(convert().ok());
  Wait();
  const auto refused = Graph::Capture(stream(), [&]() -> absl::Status {
    MILLRACE_RETURN_IF_ERROR(convert());
    return absl::NotFoundError("on purpose");
  });
  EXPECT_EQ(refused.status(), absl::NotFoundError("on purpose"));
  EXPECT_TRUE(convert().ok());
  Wait();
  // Waiting is not allowed in a capture, whether its failure is passed on or not.
  for (bool hide : {false, true}) {
    const auto broken = Graph::Capture(stream(), [&]() -> absl::Status {
      MILLRACE_RETURN_IF_ERROR(convert());
      const absl::Status waited = stream().Wait(absl::Seconds(1));
      EXPECT_FALSE(waited.ok());
      return hide ? absl::OkStatus() : waited;
    });
    EXPECT_FALSE(broken.ok());
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_TRUE(convert().ok());
    Wait();
  }
  auto graph = Graph::Capture(stream(), convert);
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_TRUE(graph->Launch(stream()).ok());
  EXPECT_EQ(HalfToFloat(Download(half)[3]), 4.0f);
}

TEST_F(GemmCudaTest, AllocatorCountsInTwoMebibytesAndGetsThemBack) {
  std::optional<cuda::DeviceBuffer> survivor;
  {
    auto created = DeviceAllocator::Create(device_, 8_MiB, 1_MiB);
    ASSERT_TRUE(created.ok()) << created.status();
    const DeviceAllocator allocator = *std::move(created);
    auto empty = allocator.Allocate(Bytes(0), "nothing");
    ASSERT_TRUE(empty.ok());
    EXPECT_EQ(allocator.used(), Bytes(0));
    auto small = allocator.Allocate(1_B, "small");
    auto large = allocator.Allocate(3_MiB, "large");
    ASSERT_TRUE(small.ok() && large.ok());
    EXPECT_EQ(large->size(), 3_MiB);
    EXPECT_EQ(allocator.used(), 6_MiB);
    EXPECT_FALSE(allocator.Allocate(1_B, "one more").ok());
    cuda::DeviceBuffer moved = *std::move(large);
    EXPECT_EQ(allocator.used(), 6_MiB);
    moved = *std::move(small);  // frees what it held
    EXPECT_EQ(allocator.used(), 2_MiB);
    survivor.emplace(std::move(moved));
    EXPECT_TRUE(allocator.Allocate(4_MiB, "again").ok());
    EXPECT_EQ(allocator.used(), 2_MiB);
  }
  survivor.reset();  // after its allocator
  const auto used = cuda::DriverUsed(device_);
  ASSERT_TRUE(used.ok()) << used.status();
  EXPECT_GT(*used, Bytes(0));
}

}  // namespace
}  // namespace millrace
