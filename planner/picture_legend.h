// The colours of a plan's picture: one for each home, route and precision of blocks, one for each
// other purpose.
#ifndef MILLRACE_PLANNER_PICTURE_LEGEND_H_
#define MILLRACE_PLANNER_PICTURE_LEGEND_H_

#include <array>
#include <map>
#include <string>
#include <vector>

#include "proto/placement_plan.h"

namespace millrace {

// A colour and what it stands for: of blocks their number and bytes too.
struct LegendLine {
  std::string text;
  std::string color;  // "#rrggbb"
};

// What is drawn below the weights, in this order.
inline constexpr std::array<Purpose, 4> kPicturePurposes = {
    Purpose::kKvCache, Purpose::kActivations, Purpose::kStreamRing, Purpose::kOverhead};

// Where a block lies and who computes it: "in RAM, streamed to the GPU".
std::string BlockGroup(const PlacementPlan& plan, const BlockPlacement& block);

// Lines of what the plan has. The functions give indices into lines().
class PictureLegend {
 public:
  explicit PictureLegend(const PlacementPlan& plan);

  const std::vector<LegendLine>& lines() const { return lines_; }
  // Of a block or a line of the ledger of the plan itself.
  size_t OfBlock(const PlacementPlan& plan, const BlockPlacement& block) const;
  size_t OfPurpose(Purpose purpose) const { return purposes_.at(purpose); }
  size_t rounding() const { return lines_.size() - 2; }  // weights that no block counts
  size_t free() const { return lines_.size() - 1; }

 private:
  struct BlockColor {
    size_t group = 0;       // hue
    std::string precision;  // lightness
    auto operator<=>(const BlockColor&) const = default;
  };
  static BlockColor ColorOf(const PlacementPlan& plan, const BlockPlacement& block);
  void AddBlocks(const PlacementPlan& plan);
  size_t Add(const std::string& text, const std::string& color);

  std::vector<LegendLine> lines_;
  std::map<BlockColor, size_t> blocks_;
  std::map<Purpose, size_t> purposes_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PICTURE_LEGEND_H_
