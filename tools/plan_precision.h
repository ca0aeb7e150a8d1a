// The planner's question with --precision auto: in which types the model is held.
#ifndef MILLRACE_TOOLS_PLAN_PRECISION_H_
#define MILLRACE_TOOLS_PLAN_PRECISION_H_

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"
#include "tools/runtime.h"

namespace millrace {

// ProblemOn (tools/plan_problem.h) for the model as it is to be held: `file` itself with
// --precision keep; with auto, as planner/precision_search.h finds, by the sensitivities that the
// request names or that lie beside its model. Says on stderr why. InvalidArgument names the flag;
// errors of sensitivity files are those of tools/sensitivity_file.h.
absl::StatusOr<PlacementProblem> ProblemAtPrecision(const ClusterSpec& cluster,
                                                    const ModelSpec& file,
                                                    const RuntimeRequest& request);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_PRECISION_H_
