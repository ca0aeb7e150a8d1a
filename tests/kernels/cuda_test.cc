// The CUDA layer. Tests of CudaDeviceTest need a GPU and skip, saying why, where there is none.
#include <gtest/gtest.h>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/status.h"
#include "kernels/norm.h"
#include "kernels/norm_cuda.h"
#include "tests/kernels/kernel_testing.h"

namespace millrace {
namespace {

using cuda::DeviceBuffer;
using cuda::Event;
using cuda::HostRegistration;
using cuda::PinnedBuffer;
using cuda::Stream;

constexpr absl::Duration kTimeout = absl::Seconds(20);

static_assert(!std::is_copy_constructible_v<Stream> && std::is_move_constructible_v<Stream>);
static_assert(!std::is_copy_constructible_v<Event> && std::is_move_constructible_v<Event>);
static_assert(!std::is_copy_constructible_v<DeviceBuffer>);
static_assert(!std::is_copy_constructible_v<PinnedBuffer>);
static_assert(!std::is_copy_constructible_v<HostRegistration>);
static_assert(!std::is_default_constructible_v<cuda::StreamView>);

TEST(CudaStatusTest, NamesTheCallAndThePlace) {
  EXPECT_TRUE(cuda::ToStatus(cudaSuccess, "f()", "a.cc", 7).ok());
  const absl::Status bad = cuda::ToStatus(cudaErrorInvalidValue, "f(1, 2)", "a.cc", 7);
  EXPECT_EQ(bad.code(), absl::StatusCode::kInternal);
  for (const char* part : {"f(1, 2)", "a.cc:7", "cudaErrorInvalidValue"}) {
    EXPECT_NE(std::string(bad.message()).find(part), std::string::npos) << bad;
  }
  EXPECT_EQ(cuda::ToStatus(cudaErrorMemoryAllocation, "m", "a.cc", 1).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(CudaDeviceListTest, GivesDevicesOrAReason) {
  const cuda::DeviceList list = cuda::ListDevices();
  EXPECT_NE(list.devices.empty(), list.reason.empty()) << list.reason;
  for (const cuda::DeviceInfo& d : list.devices) {
    EXPECT_FALSE(d.name.empty());
    EXPECT_FALSE(d.pci.empty());
    EXPECT_GE(d.sm, 50);
    EXPECT_GT(d.free_memory.count(), 0);
    EXPECT_LE(d.free_memory.count(), d.total_memory.count());
  }
}

TEST(CudaDeviceListTest, UnknownDeviceIsAStatus) {
  EXPECT_FALSE(Stream::Create(9999).ok());
  EXPECT_FALSE(Event::Create(9999).ok());
  EXPECT_FALSE(DeviceBuffer::Create(9999, Bytes(64)).ok());
}

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    device_ = list.devices[0].index;
    ASSERT_EQ(cudaSetDevice(device_), cudaSuccess);
  }
  int device_ = 0;
};

Bytes FloatBytes(size_t n) { return Bytes(static_cast<int64_t>(n * sizeof(float))); }

TEST_F(CudaDeviceTest, TooLargeIsResourceExhaustedAndNotSticky) {
  const auto huge = DeviceBuffer::Create(device_, Bytes(int64_t{1} << 50));
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted) << huge.status();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_TRUE(DeviceBuffer::Create(device_, Bytes(64)).ok());
}

TEST_F(CudaDeviceTest, MovedFromBufferIsEmptyAndMemoryComesBack) {
  constexpr Bytes kSize(int64_t{1} << 28);
  for (int i = 0; i < 2000; ++i) {  // 512 GiB in all: a leak would run out
    auto buffer = DeviceBuffer::Create(device_, kSize);
    ASSERT_TRUE(buffer.ok()) << i << " " << buffer.status();
    DeviceBuffer taken = *std::move(buffer);
    ASSERT_EQ(buffer->data(), nullptr);
    ASSERT_EQ(buffer->size(), Bytes(0));
    ASSERT_EQ(taken.size(), kSize);
  }
  auto empty = DeviceBuffer::Create(device_, Bytes(0));
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(empty->data(), nullptr);
}

TEST_F(CudaDeviceTest, CopiesPinnedAndRegisteredMemoryInOrder) {
  constexpr size_t kCount = 1 << 20;
  auto stream = Stream::Create(device_);
  auto other = Stream::Create(device_);
  auto start = Event::Create(device_, Event::Timing::kOn);
  auto end = Event::Create(device_, Event::Timing::kOn);
  auto on_device = DeviceBuffer::Create(device_, FloatBytes(kCount));
  auto back = PinnedBuffer::Create(FloatBytes(kCount));
  ASSERT_TRUE(stream.ok() && other.ok() && start.ok() && end.ok() && on_device.ok() && back.ok());
  std::vector<float> host(kCount);
  for (size_t i = 0; i < kCount; ++i) host[i] = static_cast<float>(i);
  auto registered = HostRegistration::Create(device_, host.data(), FloatBytes(kCount),
                                             HostRegistration::Access::kReadWrite);
  ASSERT_TRUE(registered.ok()) << registered.status();
  ASSERT_TRUE(start->Record(stream->view()).ok());
  ASSERT_TRUE(
      cuda::CopyAsync(on_device->data(), host.data(), FloatBytes(kCount), stream->view()).ok());
  ASSERT_TRUE(end->Record(stream->view()).ok());
  ASSERT_TRUE(end->Block(other->view()).ok());  // the second stream copies after the first
  ASSERT_TRUE(
      cuda::CopyAsync(back->data(), on_device->data(), FloatBytes(kCount), other->view()).ok());
  ASSERT_TRUE(other->view().Wait(kTimeout).ok());
  EXPECT_EQ(std::memcmp(back->data(), host.data(), kCount * sizeof(float)), 0);
  ASSERT_TRUE(end->Wait(kTimeout).ok());
  auto took = end->Since(*start);
  ASSERT_TRUE(took.ok()) << took.status();
  EXPECT_GT(*took, absl::ZeroDuration());
}

TEST_F(CudaDeviceTest, RmsNormAgreesWithReferenceAndKeepsToItsRows) {
  std::mt19937_64 rng(1);
  auto stream = Stream::Create(device_);
  ASSERT_TRUE(stream.ok()) << stream.status();
  for (int64_t d : {1, 7, 64, 255, 257, 4096, 8192}) {
    for (int64_t n : {0, 1, 3, 200}) {
      const size_t count = static_cast<size_t>(n * d), padded = count + 64;
      std::vector<float> x = RandomFloats(count, rng, 3.0f), w = RandomFloats(d, rng);
      std::vector<float> expected(count), y(padded, -12345.0f);
      auto dx = DeviceBuffer::Create(device_, FloatBytes(count));
      auto dw = DeviceBuffer::Create(device_, FloatBytes(w.size()));
      auto dy = DeviceBuffer::Create(device_, FloatBytes(padded));
      ASSERT_TRUE(dx.ok() && dw.ok() && dy.ok());
      const cuda::StreamView s = stream->view();
      ASSERT_TRUE(cuda::CopyAsync(dx->data(), x.data(), FloatBytes(count), s).ok());
      ASSERT_TRUE(cuda::CopyAsync(dw->data(), w.data(), FloatBytes(w.size()), s).ok());
      ASSERT_TRUE(cuda::CopyAsync(dy->data(), y.data(), FloatBytes(padded), s).ok());
      ASSERT_TRUE(cuda::RmsNorm(static_cast<float*>(dx->data()), n, d,
                                static_cast<float*>(dw->data()), 1e-5f,
                                static_cast<float*>(dy->data()), s)
                      .ok());
      ASSERT_TRUE(cuda::CopyAsync(y.data(), dy->data(), FloatBytes(padded), s).ok());
      ASSERT_TRUE(s.Wait(kTimeout).ok());
      RmsNormReference(FloatView(x.data(), n, d), w.data(), 1e-5f,
                       FloatView(expected.data(), n, d));
      for (size_t i = count; i < padded; ++i) ASSERT_EQ(y[i], -12345.0f) << i - count;
      y.resize(count);
      EXPECT_LT(RelativeError(y, expected), 1e-6) << "n " << n << " d " << d;
    }
  }
}

}  // namespace
}  // namespace millrace
