// The pieces of a pass, timed on a GPU. Needs one.
#include "worker/probe_times.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "kernels/cuda/device.h"
#include "worker/backend/cuda/cuda_backend.h"

namespace millrace {
namespace {

TEST(ProbeTimesTest, RisesWithRowsAndBytesAndEndsInTime) {
  const cuda::DeviceList list = cuda::ListDevices();
  if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
  const absl::Time begin = absl::Now();
  const auto times = MeasureDeviceTimes({DeviceId("gpu0"), 6_GiB, MakeCudaBackend});
  ASSERT_TRUE(times.ok()) << times.status();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(60));
  ASSERT_TRUE(times->measured());
  for (const ProductTime& a : times->products) {
    // Weights are read at no more than 10 TB/s, products take time.
    EXPECT_GT(a.seconds, static_cast<double>(a.weights.count()) / 1e13);
    for (const ProductTime& b : times->products) {
      if (a.type != b.type) continue;
      const bool rows = a.weights == b.weights && a.tokens == 1 && b.tokens == 2048;
      const bool bytes = a.tokens == b.tokens && b.weights > 4 * a.weights;
      EXPECT_TRUE(!(rows || bytes) || b.seconds > a.seconds);
    }
  }
  EXPECT_GT(times->attention_flops, 1e12);
  EXPECT_GT(times->pass_seconds, 0);
  EXPECT_LT(times->pass_seconds, 5e-3);
  for (const SustainedRatio& s : times->sustained) EXPECT_LT(s.ratio, 3);
}

}  // namespace
}  // namespace millrace
