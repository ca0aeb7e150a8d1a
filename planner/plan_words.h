// Words for the parts of a plan, which the reports, the comparison and the picture share.
#ifndef MILLRACE_PLANNER_PLAN_WORDS_H_
#define MILLRACE_PLANNER_PLAN_WORDS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/placement_plan.h"

namespace millrace {

// The memory that a block's weights take: a device's id, "host", or "disk".
std::string MemoryOf(const PlacementPlan& plan, const BlockPlacement& block);

// "embed .. blk.3.ffn": what a stage holds.
std::string StageBlocksText(const PlacementPlan& plan, const Stage& stage);

// Names in the model's order, runs joined: "blk.10 .. blk.24 ffn", "blk.3, blk.5 .. blk.7 attn".
// Without a half's name both halves of the layers are meant; halves are joined where that is
// shorter. Groups are apart by "; ".
std::string BlockRanges(const std::vector<std::string>& names);

// "8704 up to 8, 6144 up to 32"; passes that the CPU computes whole are not named.
std::string SharesText(const BlockPlacement& block);

// Lines broken at spaces; what follows of a line is indented.
std::string WrapAt(const std::string& text, size_t width);

// The name that `plan` was made for, or "the demo model".
std::string ModelText(const PlacementPlan& plan);

// Names of memories: "gpu0", "RAM", "disk"; with the worker before ("w1/gpu0") where the plans have
// several.
class PlaceNames {
 public:
  explicit PlaceNames(absl::Span<const PlacementPlan* const> plans);

  std::string Memory(const WorkerId& worker, absl::string_view memory) const;
  // Where the block's weights are.
  std::string Home(const PlacementPlan& plan, const BlockPlacement& block) const;
  // Where an attention block's keys and values are.
  std::string KvHome(const PlacementPlan& plan, const BlockPlacement& block) const;
  // How a block kept beside its GPU is computed: "by the CPU up to 32 tokens", "streamed to gpu0".
  // Empty for blocks on their stage's device.
  std::string Route(const PlacementPlan& plan, const BlockPlacement& block) const;

 private:
  bool several_workers_ = false;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_WORDS_H_
