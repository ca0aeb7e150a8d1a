// A plan laid out as a picture: memories as columns, what they hold as boxes. planner/plan_svg.h
// draws it.
#ifndef MILLRACE_PLANNER_PLAN_PICTURE_H_
#define MILLRACE_PLANNER_PLAN_PICTURE_H_

#include <string>
#include <vector>

#include "planner/picture_legend.h"
#include "proto/placement_plan.h"

namespace millrace {

// Pixels, y downwards.
struct PictureBox {
  std::string kind;    // "block", "rounding", "free", or PurposeName
  std::string name;    // a block's, else what it is
  std::string detail;  // everything there is to say, on one line
  size_t legend = 0;   // its line in PlanPicture::legend
  Bytes bytes;
  double top = 0, height = 0;
  std::string group = "";  // neighbours of one group share a label: a block's home and route
};

// Words beside a column, with a line to the height that they speak of. Lines of kLabelLine pixels.
struct PictureLabel {
  std::vector<std::string> lines;
  double points_at = 0;
  double top = 0;
};

// One memory: a device, "RAM" or "disk". All columns have one scale and stand on one base line.
// Free space comes first, then blocks in the model's order, rounding, KV cache, activations, ring,
// overhead.
struct PictureColumn {
  std::string name;
  Bytes budget;  // zero for a disk: it has none
  Bytes used;    // as in the ledger
  // More is free than is drawn: the free box is not to scale.
  bool cut = false;
  double left = 0, top = 0, height = 0;
  std::vector<PictureBox> boxes;
  std::vector<PictureLabel> labels;
};

struct PlanPicture {
  double width = 0, height = 0;
  double base = 0;  // where the columns end
  double bytes_per_pixel = 1;
  std::vector<std::string> heading;  // model; context and slots; prediction
  std::string description;
  std::vector<PictureColumn> columns;
  std::vector<LegendLine> legend;
  size_t legend_rows = 0;  // the lines stand in columns of this many
};

inline constexpr double kPictureMargin = 24;
inline constexpr double kColumnWidth = 90;
inline constexpr double kLabelLine = 13;
inline constexpr double kLegendLine = 19;
inline constexpr double kLegendWidth = 460;

// Heights follow the ledger: where blocks add up to more than its weights they are drawn smaller.
PlanPicture LayOutPlan(const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_PICTURE_H_
