// Rows handed from device to device: both orders that events must keep, with either side held up.
// Needs a GPU; with two, between them too.
#include "worker/backend/cuda/device_rows.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"

namespace millrace {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(20);
constexpr Bytes kSize = 64_MiB;  // long enough that a copy and a fill would overlap

void HoldUp(cuda::StreamView stream) {
  const auto sleep = [](void*) { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  ASSERT_EQ(cudaLaunchHostFunc(stream.get(), sleep, nullptr), cudaSuccess);
}

struct Side {
  explicit Side(int d)
      : device(d), stream(*cuda::Stream::Create(d)), rows(*cuda::DeviceBuffer::Create(d, kSize)) {}
  void Use() const { ASSERT_EQ(cudaSetDevice(device), cudaSuccess); }
  void Fill(int value) {
    Use();
    ASSERT_EQ(cudaMemsetAsync(rows.data(), value, static_cast<size_t>(kSize.count()),
                              stream.view().get()),
              cudaSuccess);
  }
  const int device;
  cuda::Stream stream;
  cuda::DeviceBuffer rows;
};

class DeviceRowsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    gpus_ = static_cast<int>(list.devices.size());
  }

  // Ten passes; nothing but the events keeps them apart.
  void HandOver(int from, int to, bool hold_sender, bool hold_receiver) {
    Side sender(from), receiver(to);
    auto shared = DeviceRows::Create(from);
    ASSERT_TRUE(shared.ok()) << shared.status();
    RowsReceiver taker(to);
    std::vector<cuda::PinnedBuffer> got;
    for (int pass = 0; pass < 10; ++pass) {
      got.push_back(*cuda::PinnedBuffer::Create(kSize));
      sender.Use();
      ASSERT_TRUE((*shared)->Begin(sender.stream.view()).ok());
      if (hold_sender) HoldUp(sender.stream.view());
      sender.Fill(pass + 1);
      ASSERT_TRUE((*shared)->Offer(sender.stream.view()).ok());
      receiver.Use();
      if (hold_receiver) HoldUp(receiver.stream.view());
      const absl::Status taken = taker.Take(**shared, sender.rows.data(), receiver.rows.data(),
                                            kSize, receiver.stream.view());
      ASSERT_TRUE(taken.ok()) << taken;
      ASSERT_TRUE(cuda::CopyAsync(got.back().data(), receiver.rows.data(), kSize,
                                  receiver.stream.view())
                      .ok());
    }
    ASSERT_TRUE((*shared)->WaitUntilTaken(kTimeout).ok());
    ASSERT_TRUE(receiver.stream.view().Wait(kTimeout).ok());
    EXPECT_TRUE((*shared)->PassTime().ok());
    for (int pass = 0; pass < 10; ++pass) {
      const auto* bytes = static_cast<const uint8_t*>(got[static_cast<size_t>(pass)].data());
      int64_t wrong = 0;
      for (int64_t i = 0; i < kSize.count(); ++i) wrong += bytes[i] != pass + 1;
      EXPECT_EQ(wrong, 0) << "pass " << pass << " from gpu" << from << " to gpu" << to;
    }
  }

  void InEveryOrder(int from, int to) {
    HandOver(from, to, false, false);
    HandOver(from, to, true, false);
    HandOver(from, to, false, true);
  }

  int gpus_ = 0;
};

TEST_F(DeviceRowsTest, BetweenStreamsOfOneGpu) { InEveryOrder(0, 0); }

TEST_F(DeviceRowsTest, BetweenTwoGpus) {
  if (gpus_ < 2) GTEST_SKIP() << "there is one GPU only";
  InEveryOrder(0, 1);
  InEveryOrder(1, 0);
}

}  // namespace
}  // namespace millrace
