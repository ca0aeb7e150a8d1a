// Shares, rates and stalls over hand-made passes.
#include "tools/use_report.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

absl::Time At(int ms) { return absl::UnixEpoch() + absl::Milliseconds(ms); }

// Ten milliseconds: the CPU computes four of them, the GPU six; copies so far as `stats` says.
PassTrace Pass(int begin_ms, const StreamStats& stats) {
  PassTrace pass;
  pass.begin = At(begin_ms);
  pass.end = At(begin_ms + 10);
  pass.use.spans = {
      {0, Resource::kGpu, At(begin_ms), At(begin_ms + 6), "", Bytes(0)},
      {0, Resource::kCpu, At(begin_ms + 6), At(begin_ms + 10), "blk.0.ffn", Bytes(400'000'000)}};
  pass.use.copies = {{0, stats}};
  return pass;
}

StreamStats Copies(int64_t bytes, int busy_ms, int ring_ms) {
  StreamStats stats;
  stats.copied = Bytes(bytes);
  stats.busy = absl::Milliseconds(busy_ms);
  stats.stalls[static_cast<size_t>(StreamStall::kRing)].time = absl::Milliseconds(ring_ms);
  return stats;
}

TEST(UseReportTest, SharesRatesAndStalls) {
  UseReport report;
  report.Add(Pass(0, Copies(400'000'000, 8, 2)));
  report.Add(Pass(10, Copies(800'000'000, 16, 4)));
  const nlohmann::ordered_json stage = report.Json().at(0);
  EXPECT_DOUBLE_EQ(stage["cpu"]["busy"].get<double>(), 0.4);
  EXPECT_DOUBLE_EQ(stage["cpu"]["gb_per_second"].get<double>(), 100);
  EXPECT_EQ(stage["cpu"]["bytes"].get<int64_t>(), 800'000'000);
  EXPECT_DOUBLE_EQ(stage["gpu"]["busy"].get<double>(), 0.6);
  EXPECT_DOUBLE_EQ(stage["copy"]["busy"].get<double>(), 0.8);
  EXPECT_DOUBLE_EQ(stage["copy"]["gb_per_second"].get<double>(), 50);
  EXPECT_DOUBLE_EQ(stage["copy"]["stalls"]["ring_full"].get<double>(), 0.004);
  EXPECT_DOUBLE_EQ(stage["copy"]["stalls"]["source"].get<double>(), 0);
}

TEST(UseReportTest, AfterResetOnlyWhatCameLaterCounts) {
  UseReport report;
  report.Add(Pass(0, Copies(400'000'000, 8, 2)));
  report.Reset();
  EXPECT_TRUE(report.Json().empty());
  report.Add(Pass(50, Copies(600'000'000, 13, 2)));
  const nlohmann::ordered_json stage = report.Json().at(0);
  EXPECT_EQ(stage["copy"]["bytes"].get<int64_t>(), 200'000'000);
  EXPECT_DOUBLE_EQ(stage["copy"]["busy"].get<double>(), 0.5);
  EXPECT_DOUBLE_EQ(stage["copy"]["stalls"]["ring_full"].get<double>(), 0);
}

TEST(UseReportTest, NothingWhereAllWeightsAreResident) {
  UseReport report;
  PassTrace pass;
  pass.begin = At(0);
  pass.end = At(1);
  report.Add(pass);
  EXPECT_TRUE(report.Json().empty());
  EXPECT_EQ(report.Text(), "");
}

}  // namespace
}  // namespace millrace
