// The planner's question from flags: everything but the machine.
#ifndef MILLRACE_TOOLS_PLAN_PROBLEM_H_
#define MILLRACE_TOOLS_PLAN_PROBLEM_H_

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "planner/plan_query.h"
#include "tools/runtime.h"

namespace millrace {

// Tokens per slot: --ctx, or the request's default where the model was trained for as many.
int ContextOf(const ModelSpec& model, const RuntimeRequest& request);

// `model` on `cluster`, as it is given: --precision is not looked at (tools/plan_precision.h). Context, slots, cache type, routes and pins are the request's; its budgets
// are not looked at: they are the cluster's. Without --max-pass-tokens the largest pass is chosen
// by planner/pass_size.h. InvalidArgument names the flag.
absl::StatusOr<PlacementProblem> ProblemOn(const ClusterSpec& cluster, const ModelSpec& model,
                                           const RuntimeRequest& request);

// The same question, to be asked of several clusters.
absl::StatusOr<PlanQuery> QueryFor(const ModelSpec& model, const RuntimeRequest& request);

// What ActivationsAt tells in this process, for `problem`'s model, slots and context.
PassActivations ActivationsFor(const PlacementProblem& problem, int tokens, int threads,
                               bool direct_products);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_PROBLEM_H_
