// A question that can be asked of any cluster: the command line and PlannerService answer it with
// the same code.
#ifndef MILLRACE_PLANNER_PLAN_QUERY_H_
#define MILLRACE_PLANNER_PLAN_QUERY_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "planner/solver.h"
#include "planner/what_if.h"

namespace millrace {

// What activations take in passes of one size: PlacementProblem's three.
struct PassActivations {
  ActivationNeeds cpu, gpu, host_route;
};

// On `cluster` in passes of up to `tokens`: the runtime's to tell.
using ActivationsAt =
    std::function<absl::StatusOr<PassActivations>(const ClusterSpec& cluster, int tokens)>;

struct PlanQuery {
  PlacementProblem problem;  // all but the cluster, the pass size and the activations
  int max_pass_tokens = 0;   // 0: chosen by planner/pass_size.h
  ActivationsAt activations_at;
};

// True where every GPU does: whether activations leave room for dequantised weights.
bool AllGpusMultiplyDirectly(const ClusterSpec& cluster);

// The sizes that ProblemOn may ask activations for, where that many tokens a pass are wanted (0: by
// choice).
std::vector<int> PassSizesAsked(int max_pass_tokens);

// The query on a cluster, its pass size chosen. Errors are those of `activations_at` and Solve.
absl::StatusOr<PlacementProblem> ProblemOn(const ClusterSpec& cluster, const PlanQuery& query);

// `plan` (of `problem`, which is the query's) in words: RenderExplain and what more would buy, each
// planned anew.
absl::StatusOr<std::string> ExplainPlan(const PlanQuery& query, const PlacementProblem& problem,
                                        const PlacementPlan& plan);

// The query on the cluster that `change` makes of `cluster`. InvalidArgument, as from Changed, is
// annotated with `flag`: what the asker calls the change.
struct ChangedAnswer {
  ClusterSpec cluster;
  SolveResult result;
};
absl::StatusOr<ChangedAnswer> SolveChanged(const PlanQuery& query, const ClusterSpec& cluster,
                                           const MachineChange& change, absl::string_view flag);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_QUERY_H_
