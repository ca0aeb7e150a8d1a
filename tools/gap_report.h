// How far a plan is from the best that anyone could prove.
#ifndef MILLRACE_TOOLS_GAP_REPORT_H_
#define MILLRACE_TOOLS_GAP_REPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "planner/placement_problem.h"
#include "proto/placement_plan.h"

namespace millrace {

// Hands the problem to CBC as a linear program (planner/milp_model.h), for `limit` in all, and
// compares its bound with what the search counted for `plan`, which Solve gave for `problem`. Both
// count blocks as a fluid: a plan's predicted time is simulated block by block and differs a
// little. NotFound: cbc is not installed; says what to install.
absl::StatusOr<std::string> RenderGap(const PlacementProblem& problem, const PlacementPlan& plan,
                                      absl::Duration limit);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_GAP_REPORT_H_
