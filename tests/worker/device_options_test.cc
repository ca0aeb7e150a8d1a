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

TEST(DeviceOptionsTest, RefusalsQuoteThePart) {
  for (const char* bad :
       {"", "cpu,", "tpu", "cpu:", "cpu:lots", "cpu:0", "gpu", "gpu-1", "gpu0,gpu0", "gpux:1GiB"}) {
    EXPECT_EQ(ParseDevices(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_THAT(std::string(ParseDevices("cpu,tpu").status().message()), testing::HasSubstr("'tpu'"));
}

}  // namespace
}  // namespace millrace
