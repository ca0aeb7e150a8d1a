#include "planner/picture_legend.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "absl/strings/str_format.h"
#include "planner/svg_writer.h"

namespace millrace {
namespace {

constexpr size_t kMostCharacters = 72;

// Where a block lies and who computes it.
enum class BlockClass { kResident, kCpuStage, kLookedUp, kStreamed, kByCpu, kSplit, kDisk };

struct ClassInfo {
  const char* text;
  double hue;
};

constexpr std::array<ClassInfo, 7> kClasses = {{{"resident on the GPU", 210},
                                                {"in memory of a CPU stage", 175},
                                                {"in RAM, looked up", 52},
                                                {"in RAM, streamed to the GPU", 28},
                                                {"in RAM, by the CPU in small passes", 120},
                                                {"in RAM, split between CPU and GPU", 85},
                                                {"on disk, streamed to the GPU", 0}}};

BlockClass ClassOf(const PlacementPlan& plan, const BlockPlacement& block) {
  if (block.home == Home::kDisk) return BlockClass::kDisk;
  if (plan.stages[block.stage].device_kind == DeviceKind::kCpu) return BlockClass::kCpuStage;
  if (block.home == Home::kDevice) return BlockClass::kResident;
  if (!block.cpu_shares.empty()) return BlockClass::kSplit;
  if (block.host_route_max_tokens > 0) return BlockClass::kByCpu;
  return block.name == "embed" ? BlockClass::kLookedUp : BlockClass::kStreamed;
}

std::string PurposeColor(Purpose purpose) {
  switch (purpose) {
    case Purpose::kKvCache:
      return HslColor(275, 0.5, 0.72);
    case Purpose::kActivations:
      return HslColor(325, 0.5, 0.72);
    case Purpose::kStreamRing:
      return HslColor(240, 0.5, 0.72);
    default:
      return HslColor(0, 0, 0.72);
  }
}

}  // namespace

std::string BlockGroup(const PlacementPlan& plan, const BlockPlacement& block) {
  return kClasses[static_cast<size_t>(ClassOf(plan, block))].text;
}

PictureLegend::PictureLegend(const PlacementPlan& plan) {
  AddBlocks(plan);
  for (const Purpose purpose : kPicturePurposes) {
    const bool any = std::any_of(plan.ledger.begin(), plan.ledger.end(),
                                 [&](const LedgerEntry& e) { return e.purpose == purpose; });
    if (any) purposes_[purpose] = Add(std::string(PurposeName(purpose)), PurposeColor(purpose));
  }
  Add("weights beside the blocks: norms, rounding", "#d9d9d9");
  Add("free", "#ffffff");
}

size_t PictureLegend::OfBlock(const PlacementPlan& plan, const BlockPlacement& block) const {
  return blocks_.at(ColorOf(plan, block));
}

PictureLegend::BlockColor PictureLegend::ColorOf(const PlacementPlan& plan,
                                                 const BlockPlacement& block) {
  return {static_cast<size_t>(ClassOf(plan, block)), block.precision};
}

void PictureLegend::AddBlocks(const PlacementPlan& plan) {
  struct Sum {
    int blocks = 0;
    Bytes bytes;
  };
  std::map<BlockColor, Sum> sums;
  std::set<std::string> precisions;
  for (const BlockPlacement& b : plan.blocks) {
    Sum& sum = sums[ColorOf(plan, b)];
    ++sum.blocks;
    sum.bytes += b.weights;
    precisions.insert(b.precision);
  }
  // A precision is of one lightness under all hues.
  const double step = 0.32 / static_cast<double>(std::max<size_t>(precisions.size() - 1, 3));
  for (const auto& [color, sum] : sums) {
    const ClassInfo& info = kClasses[color.group];
    const auto nth = std::distance(precisions.begin(), precisions.find(color.precision));
    blocks_[color] =
        Add(absl::StrFormat("%s, %s: %d block%s, %s", info.text, color.precision, sum.blocks,
                            sum.blocks == 1 ? "" : "s", FormatBytes(sum.bytes)),
            HslColor(info.hue, 0.6, 0.5 + step * static_cast<double>(nth)));
  }
}

size_t PictureLegend::Add(const std::string& text, const std::string& color) {
  lines_.push_back({ElideMiddle(text, kMostCharacters), color});
  return lines_.size() - 1;
}

}  // namespace millrace
