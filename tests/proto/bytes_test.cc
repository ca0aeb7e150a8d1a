#include "proto/bytes.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(BytesTest, ParsesNumbersWithUnits) {
  EXPECT_EQ(ParseBytes("24GiB").value(), 24_GiB);
  EXPECT_EQ(ParseBytes(" 1.5 gib ").value(), Bytes(1610612736));
  EXPECT_EQ(ParseBytes("800MB").value(), Bytes(800000000));
  EXPECT_EQ(ParseBytes("8M").value(), 8_MiB);
  EXPECT_EQ(ParseBytes("1000").value(), Bytes(1000));
}

TEST(BytesTest, RefusesWhatIsNotASizeAndNamesIt) {
  for (const char* bad : {"", "GiB", "-1GiB", "12 parsecs", "1.2.3MB", "99999999999TiB"}) {
    auto parsed = ParseBytes(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_NE(parsed.status().message().find(bad), absl::string_view::npos);
  }
}

TEST(BytesTest, FormatsThreeDigits) {
  EXPECT_EQ(FormatBytes(24_GiB), "24.0 GiB");
  EXPECT_EQ(FormatBytes(Bytes(96)), "96 B");
  EXPECT_EQ(FormatBytes(1536_KiB), "1.50 MiB");
}

TEST(BandwidthTest, BytesOverBandwidthIsTime) {
  EXPECT_EQ(Bytes(55'000'000'000) / Bandwidth::GBPerSecond(55), absl::Seconds(1));
  EXPECT_EQ(1_GiB / Bandwidth(), absl::InfiniteDuration());
}

}  // namespace
}  // namespace millrace
