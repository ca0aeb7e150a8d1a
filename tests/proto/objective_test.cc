#include "proto/objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(ObjectiveTest, TextsAreReadAndWritten) {
  const auto is = [](const char* text, Objective expected) {
    const auto parsed = ParseObjective(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, expected) << text;
    EXPECT_EQ(ObjectiveText(*parsed), text);
  };
  is("decode", {1, 1, 0});
  is("decode:8", {8, 1, 0});
  is("prefill:4096", {1, 0, 4096});
  is("mix:512+128", {1, 128, 512});
  is("mix:512+128@8", {8, 128, 512});
}

TEST(ObjectiveTest, OthersAreRefusedWithWhatIsAllowed) {
  for (const char* text : {"", "fast", "decode:", "decode:0", "decode:-1", "decode:x", "prefill",
                           "prefill:0", "mix:", "mix:5", "mix:5+", "mix:+5", "mix:0+5", "mix:5+5@",
                           "mix:5+5@0", "decode:99999999999", "mix:5+5@8@8"}) {
    const auto parsed = ParseObjective(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("mix:PROMPT+TOKENS"));
  }
}

TEST(ObjectiveTest, Words) {
  EXPECT_EQ(ObjectiveWords({}), "one sequence decoding");
  EXPECT_EQ(ObjectiveWords({8, 1, 0}), "8 sequences decoding together");
  EXPECT_EQ(ObjectiveWords({1, 0, 512}), "reading a prompt of 512");
  EXPECT_EQ(ObjectiveWords({2, 64, 512}),
            "reading prompts of 512, then 64 tokens, 2 sequences decoding together");
}

}  // namespace
}  // namespace millrace
