// Shared by the tests of CUDA kernels: a fixture that skips without a GPU, and device arrays whose
// surroundings are checked.
#ifndef MILLRACE_TESTS_KERNELS_DEVICE_TESTING_H_
#define MILLRACE_TESTS_KERNELS_DEVICE_TESTING_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/stream.h"

namespace millrace {

inline constexpr uint8_t kPoison = 0xa5;
inline constexpr size_t kGuardBytes = 256;

// `count` elements, then poisoned bytes that nothing may touch.
template <typename T>
struct DeviceArray {
  cuda::DeviceBuffer buffer;
  size_t count;
  template <typename U = T>
  U* as() const {
    return static_cast<U*>(buffer.data());
  }
};

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    device_ = list.devices[0].index;
    ASSERT_EQ(cudaSetDevice(device_), cudaSuccess);
    auto stream = cuda::Stream::Create(device_);
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_.emplace(*std::move(stream));
    rng_.seed(std::random_device()());
    const uint64_t seed = rng_();
    rng_.seed(seed);
    RecordProperty("seed", std::to_string(seed));
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  }

  cuda::StreamView stream() const { return stream_->view(); }

  void Wait() const {
    const absl::Status done = stream().Wait(absl::Seconds(60));
    if (!done.ok()) Fail(done);
  }

  // An array with every byte poisoned: NaN as floats, about -0.005 as halves.
  template <typename T>
  DeviceArray<T> Poisoned(size_t count) const {
    return Upload(std::vector<T>(), count);
  }

  template <typename T>
  DeviceArray<T> Upload(const std::vector<T>& host, std::optional<size_t> count = {}) const {
    const size_t n = count.value_or(host.size());
    std::vector<uint8_t> bytes(n * sizeof(T) + kGuardBytes, kPoison);
    if (!host.empty()) std::memcpy(bytes.data(), host.data(), host.size() * sizeof(T));
    auto buffer = cuda::DeviceBuffer::Create(device_, Bytes(static_cast<int64_t>(bytes.size())));
    if (!buffer.ok()) Fail(buffer.status());
    Copy(buffer->data(), bytes.data(), bytes.size());
    return {*std::move(buffer), n};
  }

  template <typename T>
  void Overwrite(const DeviceArray<T>& array, const std::vector<T>& host) const {
    ASSERT_LE(host.size(), array.count);
    Copy(array.buffer.data(), host.data(), host.size() * sizeof(T));
  }

  // Waits for the stream; checks the guard.
  template <typename T>
  std::vector<T> Download(const DeviceArray<T>& array) const {
    std::vector<uint8_t> bytes(array.count * sizeof(T) + kGuardBytes);
    Copy(bytes.data(), array.buffer.data(), bytes.size());
    for (size_t i = array.count * sizeof(T); i < bytes.size(); ++i) {
      if (bytes[i] != kPoison) {
        ADD_FAILURE() << "byte " << i << " behind the array was overwritten";
        break;
      }
    }
    std::vector<T> host(array.count);
    if (array.count > 0) std::memcpy(host.data(), bytes.data(), array.count * sizeof(T));
    return host;
  }

  // A number in [low, high].
  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng_);
  }

  int device_ = 0;
  std::optional<cuda::Stream> stream_;
  std::mt19937_64 rng_;

 private:
  // Nothing that follows would make sense.
  [[noreturn]] static void Fail(const absl::Status& status) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::abort();
  }
  void Copy(void* to, const void* from, size_t size) const {
    const absl::Status queued =
        cuda::CopyAsync(to, from, Bytes(static_cast<int64_t>(size)), stream());
    if (!queued.ok()) Fail(queued);
    Wait();
  }
};

}  // namespace millrace

#endif  // MILLRACE_TESTS_KERNELS_DEVICE_TESTING_H_
