#include "planner/baselines.h"

#include <algorithm>

#include "planner/plan_builder.h"
#include "planner/stage_options.h"

namespace millrace {
namespace {

using Stages = std::optional<std::vector<StageChoice>>;

bool AllOnDevice(const StageOption& option) {
  return option.fits && option.spilled == 0 && option.on_disk == 0 && option.kv_on_host == 0;
}

// Each device in the given order takes as many blocks as its own memory holds; what is left then
// stays with the last, host memory beside it included.
Stages Fill(const StageTable& table) {
  std::vector<StageChoice> stages;
  int at = 0;
  for (int d = 0; d < table.devices() && at < table.size(); ++d) {
    int end = at;
    for (int j = at + 1; j <= table.size(); ++j) {
      if (AllOnDevice(table.Option(d, at, j))) end = j;
    }
    if (end == at) continue;
    stages.push_back({d, at, end});
    at = end;
  }
  if (at == table.size()) return stages;
  if (stages.empty()) stages.push_back({0, 0, 0});
  stages.back().end = table.size();
  return stages;
}

// Blocks in proportion to each device's room, whether or not that is wise.
Stages Proportional(const StageTable& table) {
  double total = 0;
  for (int d = 0; d < table.devices(); ++d) {
    total += static_cast<double>(std::max<int64_t>(0, table.Room(d).count()));
  }
  if (total <= 0) return std::nullopt;
  std::vector<StageChoice> stages;
  double sum = 0;
  int at = 0;
  for (int d = 0; d < table.devices(); ++d) {
    sum += static_cast<double>(std::max<int64_t>(0, table.Room(d).count()));
    const int end = static_cast<int>(sum / total * table.size() + 0.5);
    if (end > at) stages.push_back({d, at, end});
    at = std::max(at, end);
  }
  if (at < table.size()) return std::nullopt;
  return stages;
}

Stages BestSingle(const StageTable& table) {
  const auto option = [&](int d) -> const StageOption& { return table.Option(d, 0, table.size()); };
  int best = -1;
  for (int d = 0; d < table.devices(); ++d) {
    if (!option(d).fits) continue;
    if (best < 0 || option(d).seconds < option(best).seconds) best = d;
  }
  if (best < 0) return std::nullopt;
  return std::vector<StageChoice>{{best, 0, table.size()}};
}

}  // namespace

std::vector<Baseline> ComputeBaselines(const PlacementProblem& problem) {
  const auto pins = ResolvePins(problem);
  if (!pins.ok()) return {};
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, *pins);
  // As the plan's own time is predicted.
  const auto seconds = [&](const Stages& stages) -> std::optional<double> {
    if (!stages.has_value()) return std::nullopt;
    for (const StageChoice& s : *stages) {
      if (!table.Option(s.device, s.first, s.end).fits) return std::nullopt;
    }
    const PlacementPlan plan = BuildPlan(problem, memory, cost, table, *stages);
    return absl::ToDoubleSeconds(plan.predicted.objective_time);
  };
  return {{"fill by free memory, in order", seconds(Fill(table))},
          {"proportional to memory", seconds(Proportional(table))},
          {"one device", seconds(BestSingle(table))}};
}

}  // namespace millrace
