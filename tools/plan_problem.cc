#include "tools/plan_problem.h"

#include <algorithm>

#include "proto/status_macros.h"
#include "worker/activation_arena.h"
#include "worker/model/model.h"

namespace millrace {

PassActivations ActivationsFor(const PlacementProblem& problem, int tokens, int threads,
                               bool direct_products) {
  const ActivationShape shape = {tokens, threads, problem.slots, problem.context, direct_products};
  ActivationShape host_route = shape;
  host_route.max_pass_tokens = std::min(tokens, kMaxHostRouteTokens);
  return {ActivationNeedsOf(problem.model, shape, DeviceKind::kCpu),
          ActivationNeedsOf(problem.model, shape, DeviceKind::kGpu),
          ActivationNeedsOf(problem.model, host_route, DeviceKind::kCpu)};
}

int ContextOf(const ModelSpec& model, const RuntimeRequest& request) {
  return request.budget.context > 0 ? request.budget.context
                                    : std::min(request.default_context, model.context_length);
}

absl::StatusOr<PlanQuery> QueryFor(const ModelSpec& model, const RuntimeRequest& request) {
  PlanQuery query;
  PlacementProblem& problem = query.problem;
  MILLRACE_ASSIGN_OR_RETURN(const PlanWishes wishes, ParseWishes(request.budget));
  problem.model_reference = request.model.empty() ? kDemoModel : request.model;
  problem.model = model;
  problem.context = ContextOf(model, request);
  problem.slots = request.budget.slots;
  problem.kv_type = wishes.kv_type;
  problem.expected_prompt_tokens =
      std::clamp(request.expected_prompt_tokens, 1, std::max(1, problem.context - 1));
  problem.pins = wishes.pins;
  problem.routes = wishes.routes;
  problem.objective = wishes.objective;
  query.max_pass_tokens = request.budget.max_pass_tokens;
  query.activations_at = [problem](const ClusterSpec& cluster, int tokens) {
    return ActivationsFor(problem, tokens, cluster.hosts.front().threads,
                          AllGpusMultiplyDirectly(cluster));
  };
  return query;
}

absl::StatusOr<PlacementProblem> ProblemOn(const ClusterSpec& cluster, const ModelSpec& model,
                                           const RuntimeRequest& request) {
  MILLRACE_ASSIGN_OR_RETURN(const PlanQuery query, QueryFor(model, request));
  return ProblemOn(cluster, query);
}

}  // namespace millrace
