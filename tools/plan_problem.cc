#include "tools/plan_problem.h"

#include <algorithm>

#include "planner/pass_size.h"
#include "proto/status_macros.h"
#include "worker/activation_arena.h"
#include "worker/model/model.h"

namespace millrace {
namespace {

bool AllGpusMultiplyDirectly(const ClusterSpec& cluster) {
  for (const HostSpec& host : cluster.hosts) {
    for (const DeviceSpec& device : host.devices) {
      if (device.kind == DeviceKind::kGpu && !device.direct_products) return false;
    }
  }
  return true;
}

void SetPassTokens(PlacementProblem& problem, int tokens, int threads) {
  problem.max_pass_tokens = tokens;
  const ActivationShape shape = {tokens, threads, problem.slots, problem.context,
                                 AllGpusMultiplyDirectly(problem.cluster)};
  problem.activations = ActivationNeedsOf(problem.model, shape, DeviceKind::kCpu);
  problem.gpu_activations = ActivationNeedsOf(problem.model, shape, DeviceKind::kGpu);
  ActivationShape host_route = shape;
  host_route.max_pass_tokens = std::min(tokens, kMaxHostRouteTokens);
  problem.host_route_activations = ActivationNeedsOf(problem.model, host_route, DeviceKind::kCpu);
}

// `problem` with passes of the size asked for, or of the best.
absl::StatusOr<PlacementProblem> WithPassSize(PlacementProblem problem,
                                              const RuntimeRequest& request) {
  const int asked = request.budget.max_pass_tokens;
  const auto problem_at = [&](int tokens) -> absl::StatusOr<PlacementProblem> {
    SetPassTokens(problem, tokens, problem.cluster.hosts.front().threads);
    return problem;
  };
  return asked > 0 ? problem_at(asked) : AtBestPassSize(problem.cluster, problem_at);
}

}  // namespace

int ContextOf(const ModelSpec& model, const RuntimeRequest& request) {
  return request.budget.context > 0 ? request.budget.context
                                    : std::min(request.default_context, model.context_length);
}

absl::StatusOr<PlacementProblem> ProblemOn(const ClusterSpec& cluster, const ModelSpec& model,
                                           const RuntimeRequest& request) {
  PlacementProblem problem;
  MILLRACE_ASSIGN_OR_RETURN(const PlanWishes wishes, ParseWishes(request.budget));
  problem.model_reference = request.model.empty() ? kDemoModel : request.model;
  problem.model = model;
  problem.cluster = cluster;
  problem.context = ContextOf(model, request);
  problem.slots = request.budget.slots;
  problem.kv_type = wishes.kv_type;
  problem.expected_prompt_tokens =
      std::clamp(request.expected_prompt_tokens, 1, std::max(1, problem.context - 1));
  problem.pins = wishes.pins;
  problem.routes = wishes.routes;
  return WithPassSize(std::move(problem), request);
}

}  // namespace millrace
