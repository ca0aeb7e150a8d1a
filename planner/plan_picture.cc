#include "planner/plan_picture.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "planner/picture_legend.h"
#include "planner/plan_report.h"
#include "planner/plan_words.h"
#include "planner/svg_writer.h"

namespace millrace {
namespace {

constexpr double kPlotTop = 108, kPlotHeight = 560;  // pixels
constexpr double kColumnPitch = kColumnWidth + 210;  // labels stand between
constexpr double kLeastWidth = 800;
// Of what the fullest memory uses: budgets of up to kWholeBudget times that are drawn whole, larger
// ones no higher than those, or than kShownFree times.
constexpr double kWholeBudget = 2, kShownFree = 1.25;
constexpr size_t kMostGroups = 10;  // labels for blocks of one column

// A memory with what the plan puts there.
struct Memory {
  WorkerId worker;
  std::string memory;
  Bytes budget;
  std::map<Purpose, Bytes> ledger;
  std::vector<const BlockPlacement*> blocks;
};

// In the plan's order of totals, then what has none: disks.
std::vector<Memory> MemoriesOf(const PlacementPlan& plan) {
  std::vector<Memory> memories;
  auto find = [&](const WorkerId& worker, const std::string& memory) -> Memory& {
    const auto it = std::find_if(memories.begin(), memories.end(), [&](const Memory& m) {
      return m.worker == worker && m.memory == memory;
    });
    if (it != memories.end()) return *it;
    memories.push_back({worker, memory, Bytes(0), {}, {}});
    return memories.back();
  };
  for (const LedgerTotal& t : plan.totals) find(t.worker, t.memory).budget = t.budget;
  for (const LedgerEntry& e : plan.ledger) find(e.worker, e.memory).ledger[e.purpose] += e.bytes;
  for (const BlockPlacement& b : plan.blocks) {
    Memory& memory = find(plan.stages[b.stage].worker, MemoryOf(plan, b));
    memory.blocks.push_back(&b);
    if (b.home == Home::kDisk) memory.ledger[Purpose::kWeights] += b.weights;
  }
  return memories;
}

double Count(Bytes bytes) { return static_cast<double>(bytes.count()); }

// Heights are bytes as yet. Without the free space.
void AddBoxes(const PlacementPlan& plan, const PlaceNames& names, const PictureLegend& legend,
              const Memory& memory, PictureColumn& column) {
  auto add = [&](const std::string& kind, const std::string& name, size_t line, Bytes bytes,
                 double drawn, const std::string& more) {
    const std::string detail = absl::StrCat(name, ", ", FormatBytes(bytes), more);
    column.boxes.push_back({kind, name, detail, line, bytes, 0, drawn});
  };
  Bytes blocks;
  for (const BlockPlacement* b : memory.blocks) blocks += b->weights;
  const auto held = memory.ledger.find(Purpose::kWeights);
  const Bytes weights = held == memory.ledger.end() ? Bytes(0) : held->second;
  const double shrink = blocks > weights ? Count(weights) / Count(blocks) : 1;
  for (const BlockPlacement* b : memory.blocks) {
    const std::string route = names.Route(plan, *b);
    add("block", b->name, legend.OfBlock(plan, *b), b->weights, shrink * Count(b->weights),
        absl::StrCat(", ", b->precision, route.empty() ? "" : ", ", route));
    column.boxes.back().group = BlockGroup(plan, *b);
  }
  if (weights > blocks) {
    const Bytes rest = weights - blocks;
    add("rounding", "norms, rounding", legend.rounding(), rest, Count(rest), "");
  }
  for (const Purpose purpose : kPicturePurposes) {
    const auto entry = memory.ledger.find(purpose);
    if (entry == memory.ledger.end()) continue;
    const std::string name(PurposeName(purpose));
    add(name, name, legend.OfPurpose(purpose), entry->second, Count(entry->second), "");
  }
}

// Turns bytes into pixels, puts the free space first and stacks the boxes on the base line.
void PlaceBoxes(double bytes_per_pixel, double shown_bytes, const PictureLegend& legend,
                double base, PictureColumn& column) {
  const Bytes free = column.budget - column.used;
  const double room = shown_bytes - Count(column.used);
  if (free > Bytes(0) && room > 0) {
    column.cut = Count(free) > room;
    const std::string detail =
        absl::StrCat("free, ", FormatBytes(free), column.cut ? ", not to scale" : "");
    column.boxes.insert(column.boxes.begin(), {"free", "free", detail, legend.free(), free, 0,
                                               std::min(room, Count(free))});
  }
  for (PictureBox& box : column.boxes) {
    box.height /= bytes_per_pixel;
    column.height += box.height;
  }
  column.top = base - column.height;
  double y = column.top;
  for (PictureBox& box : column.boxes) {
    box.top = y;
    y += box.height;
  }
}

// "blk.2 .. blk.5 ffn", "4 blocks, 160 MiB" of boxes [first, end).
PictureLabel BlocksLabel(const std::vector<PictureBox>& boxes, size_t first, size_t end) {
  std::vector<std::string> names;
  Bytes bytes;
  for (size_t i = first; i < end; ++i) {
    names.push_back(boxes[i].name);
    bytes += boxes[i].bytes;
  }
  std::string range = BlockRanges(names);
  if (range.size() > 29) range = absl::StrCat(names.front(), " .. ", names.back());
  const double bottom = boxes[end - 1].top + boxes[end - 1].height;
  return {
      {ElideMiddle(range, 29), absl::StrFormat("%d block%s, %s", names.size(),
                                               names.size() == 1 ? "" : "s", FormatBytes(bytes))},
      (boxes[first].top + bottom) / 2,
      0};
}

// Ends of runs of blocks of one group, or one run where there are too many.
std::vector<size_t> BlockGroups(const std::vector<PictureBox>& boxes, size_t first, size_t end) {
  std::vector<size_t> ends;
  for (size_t i = first; i < end; ++i) {
    if (i + 1 == end || boxes[i + 1].group != boxes[i].group) ends.push_back(i + 1);
  }
  if (ends.size() > kMostGroups) ends = {end};
  return ends;
}

void AddLabels(double base, PictureColumn& column) {
  const std::vector<PictureBox>& boxes = column.boxes;
  for (size_t i = 0; i < boxes.size();) {
    if (boxes[i].kind != "block") {
      const PictureBox& box = boxes[i++];
      const bool cut = box.kind == "free" && column.cut;
      column.labels.push_back(
          {{absl::StrCat(box.name, " ", FormatBytes(box.bytes), cut ? " (cut)" : "")},
           box.top + box.height / 2,
           0});
      continue;
    }
    size_t end = i;
    while (end < boxes.size() && boxes[end].kind == "block") ++end;
    for (size_t group_end : BlockGroups(boxes, i, end)) {
      column.labels.push_back(BlocksLabel(boxes, i, group_end));
      i = group_end;
    }
  }
  // Each below the one before, then up again from the base line where they went too far.
  double y = kPlotTop - kLabelLine;
  for (PictureLabel& label : column.labels) {
    const double height = kLabelLine * static_cast<double>(label.lines.size());
    label.top = std::max(y, label.points_at - height / 2);
    y = label.top + height;
  }
  y = base + 2;
  for (auto label = column.labels.rbegin(); label != column.labels.rend(); ++label) {
    label->top = std::min(label->top, y - kLabelLine * static_cast<double>(label->lines.size()));
    y = label->top;
  }
}

void AddHeading(const PlacementPlan& plan, PlanPicture& picture) {
  const auto most = static_cast<size_t>((picture.width - 2 * kPictureMargin) / 10);
  const Prediction& p = plan.predicted;
  picture.heading = {
      ElideMiddle(ModelText(plan), most),
      absl::StrFormat("%d stage%s, context %d x %d slot%s, KV cache %s, passes of up to %d tokens",
                      plan.stages.size(), plan.stages.size() == 1 ? "" : "s", plan.context,
                      plan.slots, plan.slots == 1 ? "" : "s", std::string(DTypeName(plan.kv_type)),
                      plan.max_pass_tokens),
      absl::StrFormat("predicted: %.1f tokens/s, first token of a %d-token prompt after %s",
                      p.decode_tokens_per_second, p.prompt_tokens, RenderMilliseconds(p.ttft))};
  picture.description = absl::StrCat("limited by ", plan.binding_constraint);
}

}  // namespace

PlanPicture LayOutPlan(const PlacementPlan& plan) {
  PlanPicture picture;
  const PlaceNames names({&plan});
  const PictureLegend legend(plan);
  const std::vector<Memory> memories = MemoriesOf(plan);
  picture.base = kPlotTop + kPlotHeight;
  double most_used = 0, tallest = 1;
  for (const Memory& memory : memories) {
    PictureColumn column;
    column.name = ElideMiddle(names.Memory(memory.worker, memory.memory), 36);
    column.budget = memory.budget;
    column.left = kPictureMargin + kColumnPitch * static_cast<double>(picture.columns.size());
    for (const auto& [purpose, bytes] : memory.ledger) column.used += bytes;
    AddBoxes(plan, names, legend, memory, column);
    most_used = std::max(most_used, Count(column.used));
    picture.columns.push_back(std::move(column));
  }
  double limit = kShownFree * most_used;
  for (const Memory& m : memories) {
    const bool whole = most_used == 0 || Count(m.budget) <= kWholeBudget * most_used;
    if (whole) limit = std::max(limit, Count(m.budget));
  }
  auto shown = [&](const PictureColumn& c) {
    return std::max(Count(c.used), std::min(Count(c.budget), limit));
  };
  for (const PictureColumn& c : picture.columns) tallest = std::max(tallest, shown(c));
  picture.bytes_per_pixel = tallest / kPlotHeight;
  for (PictureColumn& c : picture.columns) {
    PlaceBoxes(picture.bytes_per_pixel, shown(c), legend, picture.base, c);
    AddLabels(picture.base, c);
  }
  picture.width = std::max(
      kLeastWidth, 2 * kPictureMargin + kColumnPitch * static_cast<double>(picture.columns.size()));
  picture.legend = legend.lines();
  const auto across = static_cast<size_t>((picture.width - 2 * kPictureMargin) / kLegendWidth);
  picture.legend_rows = (legend.lines().size() + across - 1) / across;
  picture.height =
      picture.base + 56 + kLegendLine * static_cast<double>(picture.legend_rows) + kPictureMargin;
  AddHeading(plan, picture);
  return picture;
}

}  // namespace millrace
