#include "worker/stop_matcher.h"

#include "gtest/gtest.h"

namespace millrace {
namespace {

TEST(StopMatcherTest, HoldsBackWhatMayBeginAStopString) {
  StopMatcher m({"END"});
  EXPECT_EQ(m.Push("abE"), "ab");
  EXPECT_EQ(m.Push("N"), "");
  EXPECT_EQ(m.Push("x"), "ENx");
  EXPECT_EQ(m.Push("yEND z"), "y");
  EXPECT_TRUE(m.stopped());
  EXPECT_EQ(m.Push("more"), "");
  EXPECT_EQ(m.Finish(), "");
}

TEST(StopMatcherTest, FindsAStopStringThatOverlapsItsOwnBeginning) {
  StopMatcher m({"aab"});
  EXPECT_EQ(m.Push("aa"), "");
  EXPECT_EQ(m.Push("a"), "a");
  EXPECT_EQ(m.Push("b"), "");
  EXPECT_TRUE(m.stopped());
}

TEST(StopMatcherTest, FinishReturnsWhatWasHeld) {
  StopMatcher m({"", "stop"});
  EXPECT_EQ(m.Push("to st"), "to ");
  EXPECT_EQ(m.Finish(), "st");
  EXPECT_FALSE(m.stopped());
}

}  // namespace
}  // namespace millrace
