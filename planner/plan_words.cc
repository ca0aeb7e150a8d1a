#include "planner/plan_words.h"

#include <optional>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace millrace {
namespace {

// A half layer by its name, "blk.12.ffn".
struct HalfLayer {
  int layer = 0;
  std::string half;
};

std::optional<HalfLayer> ParseHalfLayer(absl::string_view name) {
  const std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
  HalfLayer out;
  if (parts.size() != 3 || parts[0] != "blk" || !absl::SimpleAtoi(parts[1], &out.layer)) {
    return std::nullopt;
  }
  out.half = std::string(parts[2]);
  return out;
}

// "blk.1, blk.3 .. blk.5"
std::string LayersText(const std::set<int>& layers) {
  std::vector<std::string> runs;
  for (auto it = layers.begin(); it != layers.end();) {
    const int first = *it;
    int last = first;
    while (++it != layers.end() && *it == last + 1) last = *it;
    runs.push_back(first == last ? absl::StrCat("blk.", first)
                                 : absl::StrCat("blk.", first, " .. blk.", last));
  }
  return absl::StrJoin(runs, ", ");
}

// "blk.3 .. blk.5; blk.6 attn; blk.2 ffn"; layers of which both halves are named once if `join`.
std::string HalvesText(std::set<int> attention, std::set<int> feed_forward, bool join) {
  std::set<int> both;
  for (int layer : attention) {
    if (join && feed_forward.contains(layer)) both.insert(layer);
  }
  for (int layer : both) {
    attention.erase(layer);
    feed_forward.erase(layer);
  }
  std::vector<std::string> groups;
  if (!both.empty()) groups.push_back(LayersText(both));
  if (!attention.empty()) groups.push_back(LayersText(attention) + " attn");
  if (!feed_forward.empty()) groups.push_back(LayersText(feed_forward) + " ffn");
  return absl::StrJoin(groups, "; ");
}

}  // namespace

std::string MemoryOf(const PlacementPlan& plan, const BlockPlacement& block) {
  const Stage& stage = plan.stages[block.stage];
  if (block.home == Home::kDisk) return "disk";
  const bool beside = stage.device_kind == DeviceKind::kGpu && block.home == Home::kHost;
  return beside ? "host" : stage.device.value();
}

std::string StageBlocksText(const PlacementPlan& plan, const Stage& stage) {
  const std::string first = plan.blocks[stage.first_block].name;
  const std::string last = plan.blocks[stage.end_block - 1].name;
  return first == last ? first : absl::StrCat(first, " .. ", last);
}

std::string BlockRanges(const std::vector<std::string>& names) {
  std::vector<std::string> before, after;  // blocks that are no half layers: embed, head
  std::set<int> attention, feed_forward;
  for (const std::string& name : names) {
    const std::optional<HalfLayer> half = ParseHalfLayer(name);
    if (half && half->half == "attn") {
      attention.insert(half->layer);
    } else if (half && half->half == "ffn") {
      feed_forward.insert(half->layer);
    } else {
      (attention.empty() && feed_forward.empty() ? before : after).push_back(name);
    }
  }
  const std::string halves = HalvesText(attention, feed_forward, /*join=*/false);
  const std::string joined = HalvesText(attention, feed_forward, /*join=*/true);
  std::vector<std::string> groups = before;
  if (!halves.empty()) groups.push_back(joined.size() <= halves.size() ? joined : halves);
  groups.insert(groups.end(), after.begin(), after.end());
  return absl::StrJoin(groups, "; ");
}

std::string SharesText(const BlockPlacement& block) {
  std::vector<std::string> parts;
  for (const CpuShare& share : block.cpu_shares) {
    parts.push_back(absl::StrCat(share.units, " up to ", share.max_tokens));
  }
  return absl::StrJoin(parts, ", ");
}

std::string WrapAt(const std::string& text, size_t width) {
  std::string out;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!out.empty() || line.data() != text.data()) out += '\n';
    while (line.size() > width) {
      const size_t space = line.rfind(' ', width);
      if (space == absl::string_view::npos || space == 0) break;
      absl::StrAppend(&out, line.substr(0, space), "\n  ");
      line.remove_prefix(space + 1);
    }
    absl::StrAppend(&out, line);
  }
  return out;
}

std::string ModelText(const PlacementPlan& plan) {
  return plan.model.empty() ? "the demo model" : plan.model;
}

PlaceNames::PlaceNames(absl::Span<const PlacementPlan* const> plans) {
  std::set<WorkerId> workers;
  for (const PlacementPlan* plan : plans) {
    for (const Stage& stage : plan->stages) workers.insert(stage.worker);
    for (const LedgerTotal& total : plan->totals) workers.insert(total.worker);
  }
  several_workers_ = workers.size() > 1;
}

std::string PlaceNames::Memory(const WorkerId& worker, absl::string_view memory) const {
  if (memory == "host") memory = "RAM";
  return several_workers_ ? absl::StrCat(worker.value(), "/", memory) : std::string(memory);
}

std::string PlaceNames::Home(const PlacementPlan& plan, const BlockPlacement& block) const {
  return Memory(plan.stages[block.stage].worker, MemoryOf(plan, block));
}

std::string PlaceNames::KvHome(const PlacementPlan& plan, const BlockPlacement& block) const {
  const Stage& stage = plan.stages[block.stage];
  return Memory(stage.worker,
                block.kv_home == millrace::Home::kHost ? "host" : stage.device.value());
}

std::string PlaceNames::Route(const PlacementPlan& plan, const BlockPlacement& block) const {
  const Stage& stage = plan.stages[block.stage];
  std::vector<std::string> parts;
  if (block.host_route_max_tokens >= plan.max_pass_tokens) {
    parts.push_back("by the CPU");
  } else if (block.host_route_max_tokens > 0) {
    parts.push_back(absl::StrCat("by the CPU up to ", block.host_route_max_tokens, " tokens"));
  }
  if (!block.cpu_shares.empty()) {
    parts.push_back(absl::StrCat("units by the CPU in passes of tokens: ", SharesText(block)));
  }
  if (parts.empty() && MemoryOf(plan, block) != stage.device.value()) {
    parts.push_back(block.name == "embed" && block.home == millrace::Home::kHost
                        ? "looked up"
                        : absl::StrCat("streamed to ", Memory(stage.worker, stage.device.value())));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace millrace
