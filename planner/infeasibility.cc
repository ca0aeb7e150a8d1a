#include "planner/infeasibility.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/stage_search.h"
#include "proto/device_layout.h"
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
  Bytes sum = 4 * kDeviceGrain + kStreamStaging + memory.HopBuffers();
  for (const ActivationNeeds& a :
       {problem.activations, problem.gpu_activations, problem.host_route_activations}) {
    sum += a.body + a.first_extra + a.last_extra;
  }
  for (int b = 0; b < memory.size(); ++b) {
    sum += memory.blocks()[b].weights * 2 + memory.Kv(b);
    sum += memory.GpuWeights(b) + 2 * memory.Streamed(b).tiled_group;
  }
  return sum;
}

// Least bytes in [low, high] for which `works` (monotone, works(high) holds), to within 0.1% and
// half a MiB.
Bytes LeastBytes(Bytes low, Bytes high, const std::function<bool(Bytes)>& works) {
  const auto near_enough = [](Bytes b) {
    return std::clamp<int64_t>(b.count() / 2000, 1, Bytes(512_KiB).count());
  };
  while ((high - low).count() > near_enough(high)) {
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

// Devices and hosts that a raise treats alike.
bool Alike(const DeviceSpec& a, const DeviceSpec& b) {
  return a.kind == b.kind && a.budget == b.budget && a.overhead == b.overhead;
}
bool Alike(const HostSpec& a, const HostSpec& b) {
  return a.budget == b.budget &&
         std::equal(a.devices.begin(), a.devices.end(), b.devices.begin(), b.devices.end(),
                    [](const DeviceSpec& x, const DeviceSpec& y) { return Alike(x, y); });
}

// True when a host before host `h`, alike and with the same pins, answers for it.
bool HostAnsweredFor(const PlacementProblem& problem, const ResolvedPins& pins, size_t h) {
  const std::vector<HostSpec>& hosts = problem.cluster.hosts;
  return !pins.any_device &&
         std::any_of(hosts.begin(), hosts.begin() + static_cast<int>(h),
                     [&](const HostSpec& other) { return Alike(other, hosts[h]); });
}

// The same of a device.
bool AnsweredFor(const PlacementProblem& problem, const ResolvedPins& pins, const DeviceRef& ref) {
  if (pins.any_device) return false;
  if (HostAnsweredFor(problem, pins, static_cast<size_t>(ref.host))) return true;
  const std::vector<DeviceSpec>& devices = problem.cluster.hosts[ref.host].devices;
  return std::any_of(devices.begin(), devices.begin() + ref.device, [&](const DeviceSpec& d) {
    return Alike(d, devices[ref.device]);
  });
}

// Keeps in `best` the smallest raise of one memory from `budget` on that makes the problem solvable.
void TryRaise(const WorkerId& worker, const std::string& memory, Bytes budget, Bytes most,
              const std::function<bool(Bytes)>& works,
              std::optional<Infeasibility::BudgetFix>& best) {
  const Bytes high = best ? budget + (best->wanted - best->budget) : most;  // must do with less
  if (!works(high)) return;
  const Bytes wanted = LeastBytes(budget, high, works);
  if (best && wanted - budget >= best->wanted - best->budget) return;
  best = {worker, memory, budget, wanted};
}

std::optional<Infeasibility::BudgetFix> SmallestSingleRaise(const PlacementProblem& problem,
                                                            const ResolvedPins& pins) {
  std::optional<Infeasibility::BudgetFix> best;
  const Bytes plenty = Plenty(problem);
  for (const DeviceRef& ref : AllDevices(problem.cluster)) {
    if (AnsweredFor(problem, pins, ref)) continue;
    const HostSpec& host = problem.cluster.hosts[ref.host];
    const DeviceSpec& device = host.devices[ref.device];
    auto works = [&](Bytes budget) {
      PlacementProblem raised = problem;
      SetBudget(raised, ref, budget);
      return Feasible(raised, pins);
    };
    TryRaise(host.worker, device.id.value(), device.budget, device.budget + device.overhead + plenty,
             works, best);
  }
  // Host memory beside GPUs.
  for (size_t h = 0; h < problem.cluster.hosts.size(); ++h) {
    const HostSpec& host = problem.cluster.hosts[h];
    int64_t gpus = 0;
    for (const DeviceSpec& d : host.devices) gpus += d.kind == DeviceKind::kGpu;
    if (gpus == 0 || HostAnsweredFor(problem, pins, h)) continue;
    auto works = [&](Bytes budget) {
      PlacementProblem raised = problem;
      raised.cluster.hosts[h].budget = budget;
      return Feasible(raised, pins);
    };
    TryRaise(host.worker, "host", host.budget, host.budget + plenty * gpus, works, best);
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

// Blocks [first, end) that do not fit alone, and would without the first or without the last of
// them: a single block where one fits nowhere, else the first such run. Found by halving, for what fits,
// fits without some of its ends.
std::pair<int, int> SmallestRun(const PlacementProblem& problem, const StageTable& table) {
  const auto fits = [&](int first, int end) {
    const auto result = SearchRun(problem.cluster, table, first, end);
    return result.ok() && !result->stages.empty();
  };
  for (int b = 0; b < table.size(); ++b) {
    if (!fits(b, b + 1)) return {b, b + 1};
  }
  int end = table.size();
  for (int fitting = 0; end - fitting > 1;) {
    const int middle = (fitting + end) / 2;
    (fits(0, middle) ? fitting : end) = middle;
  }
  int first = 0;
  for (int fitting = end; fitting - first > 1;) {
    const int middle = (first + fitting) / 2;
    (fits(middle, end) ? fitting : first) = middle;
  }
  return {first, end};
}

// Of a single block that no device takes: what the roomiest that the pins allow would need and has.
void CountOne(const StageTable& table, const ResolvedPins& pins, const MemoryBudget& memory, int b,
              Infeasibility& result) {
  DeviceSpec roomiest;
  for (int d = 0; d < table.devices(); ++d) {
    if (!pins.allowed[b][d] || table.Room(d) <= result.available) continue;
    result.available = table.Room(d);
    roomiest = table.Device(d);
  }
  roomiest.overhead = Bytes(0);  // not in the room
  result.needed = memory.Needs(roomiest, b, b + 1, {}).device_total();
}

void FindReason(const PlacementProblem& problem, const StageTable& table, const ResolvedPins& pins,
                const MemoryBudget& memory, Infeasibility& result) {
  const auto [first, end] = SmallestRun(problem, table);
  for (int b = first; b < end; ++b) {
    result.smallest_set.push_back(BlockName(memory.blocks()[b]));
  }
  if (end - first == 1) {
    CountOne(table, pins, memory, first, result);
    return;
  }
  bool any_cpu = false;
  for (int d = 0; d < table.devices(); ++d) {
    const DeviceKind kind = table.Device(d).kind;
    any_cpu |= kind == DeviceKind::kCpu;
    result.available += std::max(Bytes(0), table.Room(d) - problem.activations_on(kind).body);
    if (kind == DeviceKind::kGpu) result.available += table.HostRoom(d);
  }
  const DeviceKind kind = any_cpu ? DeviceKind::kCpu : DeviceKind::kGpu;
  for (int b = first; b < end; ++b) {
    result.needed += memory.BlockWeights(kind, b, 0, {}) + memory.Kv(b);
  }
}

std::string Summary(const Infeasibility& result) {
  const std::vector<std::string>& set = result.smallest_set;
  std::string who = absl::StrCat("block ", set.front(), " needs ");
  if (set.size() > 1) {
    who = absl::StrCat("the ", set.size(), " blocks from ", set.front(), " to ", set.back(),
                       " together need ");
  }
  std::string text = absl::StrCat(who, FormatBytes(result.needed), ", ",
                                  FormatBytes(result.available), " are available for it",
                                  set.size() > 1 && result.needed <= result.available
                                      ? " in all, not in pieces for whole blocks"
                                      : "");
  if (result.nearest_budget.empty()) {
    absl::StrAppend(&text, "; no budget helps: the pins contradict each other");
  } else if (result.nearest_budget.size() == 1) {
    const auto& fix = result.nearest_budget.front();
    absl::StrAppend(&text, "; it would fit with ", fix.worker.value(), "/", fix.memory, " at ",
                    FormatBytes(fix.wanted), " instead of ", FormatBytes(fix.budget));
  } else {
    absl::StrAppend(
        &text, "; it would fit with ",
        FormatBytes(result.nearest_budget.front().wanted - result.nearest_budget.front().budget),
        " more on every device");
  }
  return text;
}

}  // namespace

absl::StatusOr<Infeasibility> ExplainInfeasible(const PlacementProblem& problem,
                                                const StageTable& table,
                                                const ResolvedPins& pins) {
  Infeasibility result;
  FindReason(problem, table, pins, MemoryBudget(problem), result);
  if (const auto single = SmallestSingleRaise(problem, pins)) {
    result.nearest_budget = {*single};
  } else {
    result.nearest_budget = CommonRaise(problem, pins);
  }
  result.summary = Summary(result);
  return result;
}

}  // namespace millrace
