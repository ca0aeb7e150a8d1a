#include "planner/pass_size.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "planner/memory_budget.h"
#include "planner/prediction.h"
#include "planner/solver.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

bool Any(const ClusterSpec& cluster, DeviceKind kind) {
  for (const HostSpec& host : cluster.hosts) {
    for (const DeviceSpec& d : host.devices) {
      if (d.kind == kind) return true;
    }
  }
  return false;
}

bool Offloads(const PlacementPlan& plan) {
  return std::any_of(plan.blocks.begin(), plan.blocks.end(), [&](const BlockPlacement& b) {
    return b.home != Home::kDevice && plan.stages[b.stage].device_kind == DeviceKind::kGpu;
  });
}

// Some cache is in host memory: caches stay on the device as long as they fit with any pass size.
bool CacheBesideGpu(const PlacementPlan& plan) {
  return std::any_of(plan.blocks.begin(), plan.blocks.end(),
                     [](const BlockPlacement& b) { return b.kv_home == Home::kHost; });
}

double Score(const PlacementProblem& problem, const PlacementPlan& plan) {
  const MemoryBudget memory(problem);
  const double round = absl::ToDoubleSeconds(plan.predicted.objective_time);
  if (problem.objective.prompt_tokens > 0) return round;
  const int prompt = std::min(problem.context, 4096);
  const double prefill = Predictor(problem, memory, plan).PrefillSeconds(prompt);
  return round * std::pow(prefill, 0.25);
}

// The size for resident weights.
absl::StatusOr<PlacementProblem> ForResident(const ClusterSpec& cluster,
                                             const ProblemAt& problem_at) {
  const bool only_gpus = !Any(cluster, DeviceKind::kCpu) && Any(cluster, DeviceKind::kGpu);
  if (!only_gpus) return problem_at(kDefaultPassTokens);
  MILLRACE_ASSIGN_OR_RETURN(PlacementProblem problem, problem_at(kGpuPassTokens));
  if (!PassFitsWell(problem)) return problem_at(kDefaultPassTokens);
  return problem;
}

}  // namespace

absl::StatusOr<PlacementProblem> AtBestPassSize(const ClusterSpec& cluster,
                                                const ProblemAt& problem_at) {
  MILLRACE_ASSIGN_OR_RETURN(PlacementProblem first, ForResident(cluster, problem_at));
  if (!Any(cluster, DeviceKind::kGpu)) return first;
  MILLRACE_ASSIGN_OR_RETURN(const std::optional<PlacementPlan> resident, FindPlan(first));
  if (resident.has_value() && !Offloads(*resident)) return first;
  std::optional<PlacementProblem> best;
  std::pair<bool, double> least;
  PlacementProblem last;
  for (int tokens : kOffloadPassTokens) {
    MILLRACE_ASSIGN_OR_RETURN(last, problem_at(tokens));
    if (tokens > std::max(kDefaultPassTokens, last.context)) continue;
    MILLRACE_ASSIGN_OR_RETURN(const std::optional<PlacementPlan> plan, FindPlan(last));
    if (!plan.has_value()) continue;
    const std::pair<bool, double> score = {CacheBesideGpu(*plan), Score(last, *plan)};
    if (best.has_value() && score >= least) continue;
    best = last;
    least = score;
  }
  return best.has_value() ? *std::move(best) : last;
}

bool PassFitsWell(const PlacementProblem& problem) {
  for (const HostSpec& host : problem.cluster.hosts) {
    for (const DeviceSpec& d : host.devices) {
      const ActivationNeeds& needs = problem.activations_on(d.kind);
      if ((needs.body + needs.first_extra + needs.last_extra) * 10 > d.budget) return false;
    }
  }
  return true;
}

}  // namespace millrace
