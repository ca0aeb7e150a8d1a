#include "planner/solver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "planner/host_rates.h"
#include "planner/infeasibility.h"
#include "planner/plan_builder.h"
#include "planner/plan_validator.h"
#include "planner/stage_options.h"
#include "planner/stage_search.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::Status CheckHost(const HostSpec& host) {
  const std::string name = host.worker.value();
  if (host.devices.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("worker ", name, " has no devices"));
  }
  Bytes cpu;
  for (const DeviceSpec& d : host.devices) {
    if (d.budget < Bytes(0) || d.overhead < Bytes(0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker ", name, ", device ", d.id.value(), ": negative budget or overhead"));
    }
    if (d.kind == DeviceKind::kCpu) cpu += d.budget;
  }
  int cpus = 0;
  for (const DeviceSpec& d : host.devices) cpus += d.kind == DeviceKind::kCpu;
  if (cpus > 1 && cpu > host.budget) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker ", name, ": its CPU devices' budgets add up to ", FormatBytes(cpu),
        ", more than the host memory budget of ", FormatBytes(host.budget),
        ": lower --devices or raise --host-memory"));
  }
  return absl::OkStatus();
}

absl::Status CheckProblem(const PlacementProblem& p) {
  if (p.cluster.hosts.empty()) {
    return absl::InvalidArgumentError("cluster: there are no workers to plan over");
  }
  for (const HostSpec& host : p.cluster.hosts) MILLRACE_RETURN_IF_ERROR(CheckHost(host));
  if (p.context < 1) return absl::InvalidArgumentError(absl::StrCat("context is ", p.context));
  if (p.slots < 1) return absl::InvalidArgumentError(absl::StrCat("slots is ", p.slots));
  if (p.max_pass_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_pass_tokens is ", p.max_pass_tokens));
  }
  if (p.objective.batch < 1 || p.objective.batch > p.slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("the objective is ", p.objective.batch, " sequences together, but slots is ",
                     p.slots, ": raise --slots or ask for fewer"));
  }
  if (p.objective.prompt_tokens > p.context) {
    return absl::InvalidArgumentError(
        absl::StrCat("the objective is a prompt of ", p.objective.prompt_tokens,
                     " tokens, but context is ", p.context, ": raise --ctx or ask for less"));
  }
  if (p.model.layers.empty()) return absl::InvalidArgumentError("model: it has no layers");
  for (const LayerSpec& l : p.model.layers) {
    if (l.head_dim % Info(p.kv_type).block_elements != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("kv_type ", DTypeName(p.kv_type), " needs head sizes that are a multiple of ",
                       Info(p.kv_type).block_elements, "; this model has ", l.head_dim));
    }
  }
  return absl::OkStatus();
}

}  // namespace

PlacementProblem WithCpusLent(const PlacementProblem& problem) {
  PlacementProblem lent = problem;
  bool any = false;
  for (HostSpec& host : lent.cluster.hosts) {
    const auto is_cpu = [](const DeviceSpec& d) { return d.kind == DeviceKind::kCpu; };
    if (std::all_of(host.devices.begin(), host.devices.end(), is_cpu)) continue;
    host.cpu_flops = CpuFlops(host);  // known of the device that goes
    any |= std::erase_if(host.devices, is_cpu) > 0;
  }
  if (!any) lent.cluster.hosts.clear();
  return lent;
}

namespace {

absl::StatusOr<std::optional<PlacementPlan>> PlanOver(const PlacementProblem& problem) {
  MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
  const MemoryBudget memory(problem);
  const CostModel cost(problem, memory);
  const StageTable table(problem, memory, cost, pins);
  MILLRACE_ASSIGN_OR_RETURN(const StageSearchResult found, SearchStages(problem.cluster, table));
  if (found.stages.empty()) return std::nullopt;
  PlacementPlan plan = BuildPlan(problem, memory, cost, table, found.stages);
  if (!found.proven()) plan.predicted.search_gap = 1 - found.bound / found.seconds;
  MILLRACE_RETURN_IF_ERROR(ValidatePlan(problem, plan));
  return plan;
}

}  // namespace

absl::StatusOr<std::vector<StageChoice>> FindStages(const PlacementProblem& problem,
                                                    const StageTable& table,
                                                    const ResolvedPins&) {
  MILLRACE_ASSIGN_OR_RETURN(const StageSearchResult result, SearchStages(problem.cluster, table));
  return result.stages;
}

absl::StatusOr<std::optional<PlacementPlan>> FindPlan(const PlacementProblem& problem) {
  MILLRACE_RETURN_IF_ERROR(CheckProblem(problem));
  MILLRACE_ASSIGN_OR_RETURN(std::optional<PlacementPlan> plan, PlanOver(problem));
  const PlacementProblem lent = WithCpusLent(problem);
  if (lent.cluster.hosts.empty()) return plan;
  // A pin may name the CPU as a device of its own: then there is no such choice.
  const absl::StatusOr<std::optional<PlacementPlan>> other = PlanOver(lent);
  if (!other.ok() || !other->has_value()) return plan;
  if (!plan.has_value() || (*other)->predicted.objective_time < plan->predicted.objective_time) {
    plan = *other;
    MILLRACE_RETURN_IF_ERROR(ValidatePlan(problem, *plan));
  }
  return plan;
}

absl::StatusOr<SolveResult> Solve(const PlacementProblem& problem) {
  SolveResult result;
  MILLRACE_ASSIGN_OR_RETURN(result.plan, FindPlan(problem));
  if (!result.plan.has_value()) {
    MILLRACE_ASSIGN_OR_RETURN(const ResolvedPins pins, ResolvePins(problem));
    const MemoryBudget memory(problem);
    const CostModel cost(problem, memory);
    const StageTable table(problem, memory, cost, pins);
    MILLRACE_ASSIGN_OR_RETURN(result.infeasible, ExplainInfeasible(problem, table, pins));
  }
  return result;
}

}  // namespace millrace
