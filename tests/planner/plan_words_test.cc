#include "planner/plan_words.h"

#include <gtest/gtest.h>

#include "tests/planner/hand_made_plan.h"

namespace millrace {
namespace {

TEST(BlockRangesTest, JoinsRunsAndHalves) {
  EXPECT_EQ(BlockRanges({}), "");
  EXPECT_EQ(BlockRanges({"blk.3.ffn"}), "blk.3 ffn");
  EXPECT_EQ(BlockRanges({"blk.3.ffn", "blk.4.ffn", "blk.5.ffn", "blk.9.ffn"}),
            "blk.3 .. blk.5, blk.9 ffn");
  EXPECT_EQ(BlockRanges({"embed", "blk.0.attn", "blk.0.ffn", "blk.1.attn", "blk.1.ffn", "head"}),
            "embed; blk.0 .. blk.1; head");
  EXPECT_EQ(BlockRanges({"blk.0.ffn", "blk.1.attn", "blk.1.ffn", "blk.2.attn"}),
            "blk.1; blk.2 attn; blk.0 ffn");
  EXPECT_EQ(BlockRanges({"blk.0.attn", "blk.1.attn", "blk.1.ffn", "blk.2.attn", "blk.3.attn",
                         "blk.3.ffn", "blk.4.attn"}),
            "blk.0 .. blk.4 attn; blk.1, blk.3 ffn");
  EXPECT_EQ(BlockRanges({"blk.0.ffn", "blk.1.attn", "blk.1.ffn", "blk.2.attn", "blk.2.ffn"}),
            "blk.1 .. blk.2; blk.0 ffn");
  EXPECT_EQ(BlockRanges({"blk.x.ffn", "odd"}), "blk.x.ffn; odd");
}

TEST(PlaceNamesTest, NameWorkersOnlyWhereThereAreSeveral) {
  PlacementPlan plan = Spilled(ResidentPlan(4), 1, 3);
  const PlaceNames alone({&plan});
  EXPECT_EQ(alone.Home(plan, plan.blocks[0]), "gpu0");
  EXPECT_EQ(alone.Home(plan, plan.blocks[4]), "RAM");
  plan.blocks[4].home = Home::kDisk;
  EXPECT_EQ(alone.Home(plan, plan.blocks[4]), "disk");
  PlacementPlan other = plan;
  other.stages[0].worker = WorkerId("v");
  const PlaceNames both({&plan, &other});
  EXPECT_EQ(both.Home(other, other.blocks[0]), "v/gpu0");
  EXPECT_EQ(both.Memory(WorkerId("w"), "host"), "w/RAM");
}

TEST(PlaceNamesTest, RoutesOfBlocksBesideAGpu) {
  PlacementPlan plan = Spilled(ResidentPlan(4), 1, 3);
  const PlaceNames names({&plan});
  BlockPlacement& ffn = plan.blocks[4];
  EXPECT_EQ(names.Route(plan, plan.blocks[1]), "");
  EXPECT_EQ(names.Route(plan, ffn), "by the CPU up to 32 tokens");
  ffn.host_route_max_tokens = plan.max_pass_tokens;
  EXPECT_EQ(names.Route(plan, ffn), "by the CPU");
  ffn.host_route_max_tokens = 0;
  EXPECT_EQ(names.Route(plan, ffn), "streamed to gpu0");
  ffn.cpu_shares = {{8, 8704}, {32, 6144}};
  EXPECT_EQ(names.Route(plan, ffn),
            "units by the CPU in passes of tokens: 8704 up to 8, 6144 up to 32");
  plan.blocks[0].home = Home::kHost;
  EXPECT_EQ(names.Route(plan, plan.blocks[0]), "looked up");
  plan.stages[0].device_kind = DeviceKind::kCpu;
  EXPECT_EQ(names.Route(plan, plan.blocks[0]), "");
}

}  // namespace
}  // namespace millrace
