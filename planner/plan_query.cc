#include "planner/plan_query.h"

#include <iterator>
#include <optional>
#include <utility>

#include "planner/pass_size.h"
#include "planner/plan_report.h"
#include "proto/status_macros.h"

namespace millrace {

bool AllGpusMultiplyDirectly(const ClusterSpec& cluster) {
  for (const HostSpec& host : cluster.hosts) {
    for (const DeviceSpec& device : host.devices) {
      if (device.kind == DeviceKind::kGpu && !device.direct_products) return false;
    }
  }
  return true;
}

std::vector<int> PassSizesAsked(int max_pass_tokens) {
  if (max_pass_tokens > 0) return {max_pass_tokens};
  // kGpuPassTokens and kDefaultPassTokens are among them.
  return {std::begin(kOffloadPassTokens), std::end(kOffloadPassTokens)};
}

absl::StatusOr<PlacementProblem> ProblemOn(const ClusterSpec& cluster, const PlanQuery& query) {
  PlacementProblem problem = query.problem;
  problem.cluster = cluster;
  const auto problem_at = [&](int tokens) -> absl::StatusOr<PlacementProblem> {
    MILLRACE_ASSIGN_OR_RETURN(const PassActivations needs, query.activations_at(cluster, tokens));
    problem.max_pass_tokens = tokens;
    problem.activations = needs.cpu;
    problem.gpu_activations = needs.gpu;
    problem.host_route_activations = needs.host_route;
    return problem;
  };
  return query.max_pass_tokens > 0 ? problem_at(query.max_pass_tokens)
                                   : AtBestPassSize(cluster, problem_at);
}

absl::StatusOr<std::string> ExplainPlan(const PlanQuery& query, const PlacementProblem& problem,
                                        const PlacementPlan& plan) {
  const PlanOn plan_on =
      [&query](const ClusterSpec& cluster) -> absl::StatusOr<std::optional<PlacementPlan>> {
    MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem other, ProblemOn(cluster, query));
    return FindPlan(other);
  };
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<Gain> gains,
                            GainsOfMore(problem.cluster, plan, plan_on));
  return RenderExplain(plan, &problem) + RenderGains(gains, plan.predicted);
}

absl::StatusOr<ChangedAnswer> SolveChanged(const PlanQuery& query, const ClusterSpec& cluster,
                                           const MachineChange& change, absl::string_view flag) {
  ChangedAnswer answer;
  absl::StatusOr<ClusterSpec> changed = Changed(cluster, change);
  if (!changed.ok()) return Annotate(changed.status(), flag);
  answer.cluster = *std::move(changed);
  MILLRACE_ASSIGN_OR_RETURN(const PlacementProblem problem, ProblemOn(answer.cluster, query));
  MILLRACE_ASSIGN_OR_RETURN(answer.result, Solve(problem));
  return answer;
}

}  // namespace millrace
