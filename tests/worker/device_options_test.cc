#include "worker/device_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(DeviceOptionsTest, SeveralCpusGetTheirOwnNamesAndBudgets) {
  const auto devices = ParseDevices("cpu:48MiB,cpu,gpu0:20GiB");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 3u);
  EXPECT_EQ((*devices)[0].id, DeviceId("cpu"));
  EXPECT_EQ((*devices)[0].budget, 48_MiB);
  EXPECT_EQ((*devices)[1].id, DeviceId("cpu#1"));
  EXPECT_EQ((*devices)[1].budget, std::nullopt);
  EXPECT_EQ((*devices)[2].id, DeviceId("gpu0"));
  EXPECT_EQ((*devices)[2].kind, DeviceKind::kGpu);
}

TEST(DeviceOptionsTest, TheSameGpuAgainIsOneMoreLogicalDevice) {
  const auto devices = ParseDevices("gpu1:24GiB,gpu0,gpu1:8GiB,cpu,gpu1");
  ASSERT_TRUE(devices.ok()) << devices.status();
  ASSERT_EQ(devices->size(), 5u);
  const char* ids[] = {"gpu1", "gpu0", "gpu1#1", "cpu", "gpu1#2"};
  const int hardware[] = {1, 0, 1, 0, 1};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ((*devices)[i].id, DeviceId(ids[i]));
    EXPECT_EQ((*devices)[i].index, hardware[i]);
  }
  EXPECT_EQ((*devices)[0].budget, 24_GiB);
  EXPECT_EQ((*devices)[2].budget, 8_GiB);
  EXPECT_EQ((*devices)[4].budget, std::nullopt);
}

TEST(DeviceOptionsTest, AutoIsAllGpusOrTheCpu) {
  const auto devices = ParseDevices("auto");
  ASSERT_TRUE(devices.ok()) << devices.status();
  EXPECT_TRUE(devices->empty());
  const auto gpus = AutoDevices(2);
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[1].id, DeviceId("gpu1"));
  EXPECT_EQ(gpus[1].index, 1);
  ASSERT_EQ(AutoDevices(0).size(), 1u);
  EXPECT_EQ(AutoDevices(0)[0].id, DeviceId("cpu"));
}

TEST(DeviceOptionsTest, RefusalsQuoteThePart) {
  for (const char* bad :
       {"", "cpu,", "tpu", "cpu:", "cpu:lots", "cpu:0", "gpu", "gpu-1", "gpu+1", "gpux:1GiB",
        "auto:1GiB", "auto,cpu"}) {
    EXPECT_EQ(ParseDevices(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_THAT(std::string(ParseDevices("cpu,tpu").status().message()), testing::HasSubstr("'tpu'"));
}

}  // namespace
}  // namespace millrace
