#include "kernels/cuda/device_probe.h"

#include <gtest/gtest.h>

#include "kernels/cuda/driver_memory.h"

namespace millrace::cuda {
namespace {

TEST(DeviceProbeTest, ContextIsWhatTheDriverCountsOrABound) {
  const Bytes total = 80_GiB, unknown(-1);
  // Counted before and after, whatever others use.
  EXPECT_EQ(ContextBytes(70_GiB, 70_GiB - 520_MiB, total, 69_GiB), 520_MiB);
  // Alone on the card and nothing counted: all that is used.
  EXPECT_EQ(ContextBytes(unknown, unknown, total, total - 600_MiB), 600_MiB);
  // Others on the card, or a context that was there before: no more than a context takes.
  const Bytes bound = ContextBytes(unknown, unknown, total, 10_GiB);
  EXPECT_GE(bound, 512_MiB);
  EXPECT_LE(bound, 1_GiB);
  EXPECT_EQ(ContextBytes(10_GiB, 10_GiB, total, 10_GiB), bound);
}

TEST(DeviceProbeTest, BuffersTakeAQuarterOfTheBudgetOrOfWhatIsFree) {
  EXPECT_EQ(BufferRoom(24_GiB, 80_GiB), 6_GiB);
  EXPECT_EQ(BufferRoom(1200_MiB, 80_GiB), 300_MiB);
  EXPECT_EQ(BufferRoom(80_GiB, 2_GiB), 512_MiB);
  EXPECT_EQ(BufferRoom(1_MiB, 2_GiB), 1_MiB);
}

TEST(DeviceProbeTest, UnknownDevicesHaveNoFreeMemory) {
  EXPECT_EQ(DriverFreeMemory("ffff:ff:ff.0"), std::nullopt);
}

TEST(DeviceProbeTest, MeasuresEveryDeviceThatIsListed) {
  const DeviceNames listed = ListDeviceNames();
  if (listed.names.empty()) GTEST_SKIP() << listed.reason;
  for (int i = 0; i < static_cast<int>(listed.names.size()); ++i) {
    const auto probe = ProbeDevice(i, 24_GiB);
    ASSERT_TRUE(probe.ok()) << probe.status();
    EXPECT_EQ(probe->name, listed.names[static_cast<size_t>(i)]);
    EXPECT_GT(probe->clock_hz, 1e8);
    EXPECT_GT(probe->read.gb_per_second(), 50);
    EXPECT_GT(probe->upload.gb_per_second(), 1);
    EXPECT_GT(probe->context, 64_MiB);
    EXPECT_LE(probe->free_memory + probe->context, probe->total_memory);
  }
}

}  // namespace
}  // namespace millrace::cuda
