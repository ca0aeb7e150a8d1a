#include "worker/stream/ring_arena.h"

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(RingArenaTest, PiecesFollowEachOtherAndSkipTheEnd) {
  RingArena arena(1000_B);
  EXPECT_EQ(arena.Take(400_B), 0_B);
  EXPECT_EQ(arena.Take(400_B), 400_B);
  EXPECT_EQ(arena.Take(300_B), std::nullopt);  // 200 at the end, nothing at the beginning
  arena.FreeOldest();
  EXPECT_EQ(arena.Take(300_B), 0_B);
  EXPECT_EQ(arena.Take(101_B), std::nullopt);
  EXPECT_EQ(arena.Take(100_B), 300_B);  // up to the oldest exactly
  EXPECT_EQ(arena.Take(1_B), std::nullopt);
  arena.FreeOldest();
  EXPECT_EQ(arena.Take(600_B), 400_B);
  EXPECT_EQ(arena.pieces(), 3u);
}

TEST(RingArenaTest, EmptyRingTakesAnythingUpToItsSize) {
  RingArena arena(1000_B);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(arena.Take(600_B), 0_B);
    EXPECT_EQ(arena.Take(600_B), std::nullopt);
    arena.FreeOldest();
    EXPECT_EQ(arena.Take(1001_B), std::nullopt);
    EXPECT_EQ(arena.Take(1000_B), 0_B);
    arena.FreeOldest();
  }
}

TEST(RingArenaTest, NewestIsGivenBack) {
  RingArena arena(1000_B);
  EXPECT_EQ(arena.Take(700_B), 0_B);
  EXPECT_EQ(arena.Take(300_B), 700_B);
  arena.FreeOldest();
  EXPECT_EQ(arena.Take(200_B), 0_B);
  arena.FreeNewest();
  EXPECT_EQ(arena.Take(650_B), 0_B);
  EXPECT_EQ(arena.Take(100_B), std::nullopt);
}

}  // namespace
}  // namespace millrace
