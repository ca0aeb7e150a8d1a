#include "planner/infeasibility.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

bool Feasible(const PlacementProblem& problem, const ResolvedPins& pins) {
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  const auto stages = FindStages(problem, table, pins);
  return stages.ok() && !stages->empty();
}

// Everything the model could ever ask of one memory: enough for any budget search.
Bytes Plenty(const PlacementProblem& problem) {
  const MemoryBudget memory(problem);
  Bytes sum = problem.activations.body + problem.activations.first_extra +
              problem.activations.last_extra;
  for (int b = 0; b < memory.size(); ++b) sum += memory.blocks()[b].weights * 3 + memory.Kv(b);
  return sum;
}

// Least bytes in [low, high] for which `works` (monotone, works(high) holds), to within 0.1%.
Bytes LeastBytes(Bytes low, Bytes high, const std::function<bool(Bytes)>& works) {
  while ((high - low).count() > std::max<int64_t>(1, high.count() / 2000)) {
    const Bytes middle((low.count() + high.count()) / 2);
    (works(middle) ? high : low) = middle;
  }
  return high;
}

void SetBudget(PlacementProblem& problem, const DeviceRef& ref, Bytes budget) {
  HostSpec& host = problem.cluster.hosts[ref.host];
  DeviceSpec& device = host.devices[ref.device];
  if (device.kind == DeviceKind::kCpu) {
    // A CPU's memory is its host's: both limits move.
    host.budget += std::max(Bytes(0), budget - std::min(device.budget, host.budget));
  }
  device.budget = budget;
}

std::optional<Infeasibility::BudgetFix> SmallestSingleRaise(const PlacementProblem& problem,
                                                            const ResolvedPins& pins) {
  std::optional<Infeasibility::BudgetFix> best;
  for (const DeviceRef& ref : AllDevices(problem.cluster)) {
    const HostSpec& host = problem.cluster.hosts[ref.host];
    const DeviceSpec& device = host.devices[ref.device];
    auto works = [&](Bytes budget) {
      PlacementProblem raised = problem;
      SetBudget(raised, ref, budget);
      return Feasible(raised, pins);
    };
    const Bytes high = device.budget + device.overhead + Plenty(problem);
    if (!works(high)) continue;
    const Bytes wanted = LeastBytes(device.budget, high, works);
    if (!best || wanted - device.budget < best->wanted - best->budget) {
      best = {host.worker, device.id.value(), device.budget, wanted};
    }
  }
  return best;
}

// All budgets by one factor, for pins or links that make no single raise enough.
std::vector<Infeasibility::BudgetFix> CommonRaise(const PlacementProblem& problem,
                                                  const ResolvedPins& pins) {
  auto raised_by = [&](Bytes extra) {
    PlacementProblem raised = problem;
    for (const DeviceRef& ref : AllDevices(problem.cluster)) {
      SetBudget(raised, ref,
                problem.cluster.hosts[ref.host].devices[ref.device].budget + extra);
    }
    return raised;
  };
  auto works = [&](Bytes extra) { return Feasible(raised_by(extra), pins); };
  const Bytes high = Plenty(problem);
  if (!works(high)) return {};  // pins that contradict each other: no budget helps
  const Bytes extra = LeastBytes(Bytes(0), high, works);
  std::vector<Infeasibility::BudgetFix> fixes;
  for (const HostSpec& host : problem.cluster.hosts) {
    for (const DeviceSpec& d : host.devices) {
      fixes.push_back({host.worker, d.id.value(), d.budget, d.budget + extra});
    }
  }
  return fixes;
}

}  // namespace

absl::StatusOr<Infeasibility> ExplainInfeasible(const PlacementProblem& problem,
                                                const StageTable& table,
                                                const ResolvedPins& pins) {
  Infeasibility result;
  const MemoryBudget memory(problem);
  const int n = memory.size();
  // The shortest run of blocks that no device takes alone, if it is a single block: that block is the
  // reason. Otherwise every block fits somewhere and the whole does not.
  for (int b = 0; b < n && result.smallest_set.empty(); ++b) {
    bool placeable = false;
    Bytes room;
    for (int d = 0; d < table.devices(); ++d) {
      placeable |= table.Option(d, b, b + 1).fits;
      if (pins.allowed[b][d]) room = std::max(room, table.Room(d));
    }
    if (placeable) continue;
    const StageNeeds needs = memory.Needs(DeviceSpec(), b, b + 1, {});
    result.smallest_set = {BlockName(memory.blocks()[b])};
    result.needed = needs.device_total();
    result.available = room;
  }
  if (result.smallest_set.empty()) {
    for (int b = 0; b < n; ++b) {
      result.smallest_set.push_back(BlockName(memory.blocks()[b]));
      result.needed += memory.BlockWeights(b, 0) + memory.Kv(b);
    }
    for (int d = 0; d < table.devices(); ++d) {
      result.available += std::max(Bytes(0), table.Room(d) - problem.activations.body);
    }
  }
  if (const auto single = SmallestSingleRaise(problem, pins)) {
    result.nearest_budget = {*single};
  } else {
    result.nearest_budget = CommonRaise(problem, pins);
  }
  const std::string what = result.smallest_set.size() == 1
                               ? absl::StrCat("block ", result.smallest_set.front())
                               : absl::StrCat("the model's ", n, " blocks");
  result.summary = absl::StrCat(what, " need", result.smallest_set.size() == 1 ? "s " : " ",
                                FormatBytes(result.needed), ", ", FormatBytes(result.available),
                                " are available for it");
  if (result.nearest_budget.empty()) {
    absl::StrAppend(&result.summary, "; no budget helps: the pins contradict each other");
  } else if (result.nearest_budget.size() == 1) {
    const auto& fix = result.nearest_budget.front();
    absl::StrAppend(&result.summary, "; it would fit with ", fix.worker.value(), "/", fix.memory,
                    " at ", FormatBytes(fix.wanted), " instead of ", FormatBytes(fix.budget));
  } else {
    absl::StrAppend(&result.summary, "; it would fit with ",
                    FormatBytes(result.nearest_budget.front().wanted -
                                result.nearest_budget.front().budget),
                    " more on every device");
  }
  return result;
}

}  // namespace millrace
