// What was measured of a GPU is kept by hardware and driver, and read again by the next probe.
#include "worker/probe_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "proto/convert.h"
#include "proto/field_check.h"
#include "proto/plan_json.h"
#include "worker/probe.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

DeviceTimes Times() {
  DeviceTimes times;
  times.products = {{DType::kQ4_K, 1, 10_MiB, 1e-5}, {DType::kQ4_K, 8, 10_MiB, 2e-5}};
  times.attention = {{1, 1e-6, 1e-12}, {8, 2e-6, 2e-12}};
  times.sustained = {{1, 1}, {512, 1.1}};
  times.prompt_row_seconds = 1e-8;
  times.attention_flops = 1e14;
  times.pass_seconds = 3e-5;
  times.output_seconds = 1e-6;
  return times;
}

class ProbeCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/probe-cache-" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(ProbeCacheTest, WhatIsWrittenIsReadByTheSameKeyOnly) {
  EXPECT_FALSE(ReadDeviceTimes(folder_, "a card cuda13000").measured());
  ASSERT_TRUE(WriteDeviceTimes(folder_, "a card cuda13000", Times()).ok());
  EXPECT_EQ(ReadDeviceTimes(folder_, "a card cuda13000"), Times());
  EXPECT_FALSE(ReadDeviceTimes(folder_, "a card cuda13010").measured());
  EXPECT_FALSE(ReadDeviceTimes("", "a card cuda13000").measured());
}

TEST_F(ProbeCacheTest, ADamagedFileIsMeasuredAgain) {
  ASSERT_TRUE(WriteDeviceTimes(folder_, "k", Times()).ok());
  for (const char* text : {"", "{", "{\"products\":[{\"tokens\":-1}]}", "{\"unknown\":1}"}) {
    std::ofstream(DeviceTimesFile(folder_, "k")) << text;
    EXPECT_FALSE(ReadDeviceTimes(folder_, "k").measured()) << text;
  }
}

TEST_F(ProbeCacheTest, AFolderThatCannotBeIsNamed) {
  std::ofstream(folder_) << "a file";
  const absl::Status status = WriteDeviceTimes(folder_ + "/below", "k", Times());
  EXPECT_THAT(std::string(status.message()), HasSubstr("--cache-dir"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_));
}

TEST_F(ProbeCacheTest, EveryFieldIsChecked) {
  const auto refusal = [](auto change) {
    v1::DeviceTimes wire = ToProto(Times());
    change(wire);
    return std::string(DeviceTimesFromJson(MessageToJson(wire)).status().message());
  };
  EXPECT_EQ(refusal([](v1::DeviceTimes&) {}), "");
  EXPECT_THAT(refusal([](v1::DeviceTimes& t) { t.mutable_products(1)->set_seconds(0); }),
              HasSubstr("products[1].seconds"));
  EXPECT_THAT(refusal([](v1::DeviceTimes& t) { t.mutable_products(0)->set_weights(0); }),
              HasSubstr("products[0].weights"));
  EXPECT_THAT(refusal([](v1::DeviceTimes& t) { t.mutable_attention(1)->set_sequences(1); }),
              HasSubstr("attention[1].sequences"));
  EXPECT_THAT(refusal([](v1::DeviceTimes& t) { t.mutable_sustained(0)->set_ratio(-1); }),
              HasSubstr("sustained[0].ratio"));
}

// A GPU that is not there, timed once.
ProbeOptions Options(const std::string& folder, int& timed) {
  ProbeOptions options;
  options.worker = WorkerId("w");
  options.threads = 1;
  options.host_memory = 1_GiB;
  options.devices = *ParseDevices("gpu0");
  options.cache_folder = folder;
  options.gpus.list = [] { return GpuList{{"card"}, ""}; };
  options.gpus.probe = [](int, Bytes) -> absl::StatusOr<GpuReport> {
    GpuReport report;
    report.name = "card";
    report.key = "card cuda1";
    report.total = report.free = 8_GiB;
    return report;
  };
  options.gpus.upload = nullptr;
  options.gpus.measure_times = [&timed](int, Bytes room) -> absl::StatusOr<DeviceTimes> {
    ++timed;
    EXPECT_LE(room, 8_GiB);
    return Times();
  };
  return options;
}

TEST_F(ProbeCacheTest, AProbeUsesWhatAnotherMeasured) {
  int timed = 0;
  ProbeOptions options = Options(folder_, timed);
  const auto before = ProbeHost(options);
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_FALSE(before->devices[0].times.measured());
  options.measure_times = true;
  ASSERT_TRUE(ProbeHost(options).ok());
  EXPECT_EQ(timed, 1);
  options.measure_times = false;
  const auto after = ProbeHost(options);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->devices[0].times, Times());
  EXPECT_EQ(timed, 1);
  EXPECT_EQ(FromProto(ToProto(*after))->devices[0].times, Times());
}

TEST_F(ProbeCacheTest, TimingKeepsToTheBudgetAndTooLittleRoomIsNoError) {
  int timed = 0;
  ProbeOptions options = Options(folder_, timed);
  ASSERT_TRUE(WriteDeviceTimes(folder_, "card cuda1", Times()).ok());
  options.devices = *ParseDevices("gpu0:2GiB");
  options.measure_times = true;
  options.gpus.measure_times = [](int, Bytes room) -> absl::StatusOr<DeviceTimes> {
    EXPECT_LE(room, 2_GiB);
    return absl::ResourceExhaustedError("too little");
  };
  const auto host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ(host->devices[0].times, Times()) << "what was measured before stays";
  options.gpus.measure_times = [](int, Bytes) -> absl::StatusOr<DeviceTimes> {
    return absl::InternalError("a kernel failed");
  };
  EXPECT_THAT(std::string(ProbeHost(options).status().message()), HasSubstr("timing gpu0"));
}

}  // namespace
}  // namespace millrace
