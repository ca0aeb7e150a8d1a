#include "planner/baselines.h"

#include <algorithm>

#include "planner/stage_options.h"

namespace millrace {
namespace {

std::optional<double> Seconds(const StageTable& table, const std::vector<StageChoice>& stages) {
  double sum = 0;
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageOption& option = table.Option(stages[i].device, stages[i].first, stages[i].end);
    if (!option.fits) return std::nullopt;
    sum += option.seconds;
    if (i > 0) sum += table.HopSeconds(stages[i - 1].device, stages[i].device);
  }
  return sum;
}

// Each device in the given order takes as many blocks as fit.
std::optional<double> Fill(const StageTable& table) {
  std::vector<StageChoice> stages;
  int at = 0;
  for (int d = 0; d < table.devices() && at < table.size(); ++d) {
    int end = at;
    for (int j = at + 1; j <= table.size(); ++j) {
      if (table.Option(d, at, j).fits) end = j;
    }
    if (end == at) continue;
    stages.push_back({d, at, end});
    at = end;
  }
  if (at < table.size()) return std::nullopt;
  return Seconds(table, stages);
}

// Blocks in proportion to each device's room, whether or not that is wise.
std::optional<double> Proportional(const StageTable& table) {
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
  return at == table.size() ? Seconds(table, stages) : std::nullopt;
}

std::optional<double> BestSingle(const StageTable& table) {
  std::optional<double> best;
  for (int d = 0; d < table.devices(); ++d) {
    const StageOption& option = table.Option(d, 0, table.size());
    if (option.fits && (!best || option.seconds < *best)) best = option.seconds;
  }
  return best;
}

}  // namespace

std::vector<Baseline> ComputeBaselines(const PlacementProblem& problem) {
  const auto pins = ResolvePins(problem);
  if (!pins.ok()) return {};
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, *pins);
  return {{"fill by free memory, in order", Fill(table)},
          {"proportional to memory", Proportional(table)},
          {"one device", BestSingle(table)}};
}

}  // namespace millrace
