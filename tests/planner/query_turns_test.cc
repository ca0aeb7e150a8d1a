#include "planner/query_turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

TEST(QueryTurnsTest, OneMoreThanMayWaitIsRefusedAtOnce) {
  QueryTurns turns(1, 0);
  auto first = turns.Take(absl::InfiniteFuture());
  ASSERT_TRUE(first.ok());
  const auto second = turns.Take(absl::InfiniteFuture());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("ask again later"));
}

TEST(QueryTurnsTest, WaitingEndsWithTheDeadlineAndLeavesNoTrace) {
  QueryTurns turns(1, 1);
  {
    auto first = turns.Take(absl::InfiniteFuture());
    ASSERT_TRUE(first.ok());
    for (int i = 0; i < 3; ++i) {  // each has the one place to wait for itself
      EXPECT_EQ(turns.Take(absl::Now() + absl::Milliseconds(5)).status().code(),
                absl::StatusCode::kDeadlineExceeded);
    }
  }
  EXPECT_TRUE(turns.Take(absl::Now()).ok());
}

TEST(QueryTurnsTest, NeverMoreThanThatManyAtOnceAndAllGetTheirTurn) {
  QueryTurns turns(3, 100);
  std::atomic<int> now = 0, most = 0, done = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 24; ++i) {
    threads.emplace_back([&] {
      const auto turn = turns.Take(absl::Now() + absl::Seconds(30));
      ASSERT_TRUE(turn.ok()) << turn.status();
      const int here = ++now;
      for (int seen = most; seen < here && !most.compare_exchange_weak(seen, here);) {
      }
      absl::SleepFor(absl::Milliseconds(2));
      --now;
      ++done;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 24);
  EXPECT_LE(most, 3);
}

TEST(QueryTurnsTest, ATurnThatMovesIsGivenBackOnce) {
  QueryTurns turns(1, 0);
  {
    auto first = turns.Take(absl::InfiniteFuture());
    ASSERT_TRUE(first.ok());
    const QueryTurns::Turn moved = *std::move(first);
    EXPECT_FALSE(turns.Take(absl::Now()).ok());
  }
  EXPECT_TRUE(turns.Take(absl::Now()).ok());
}

}  // namespace
}  // namespace millrace
