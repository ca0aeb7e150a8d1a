// CheckPlanMemory: the validator's half that counts bytes, with arithmetic of its own.
#ifndef MILLRACE_PLANNER_PLAN_MEMORY_CHECK_H_
#define MILLRACE_PLANNER_PLAN_MEMORY_CHECK_H_

#include "absl/status/status.h"
#include "planner/placement_problem.h"
#include "proto/placement_plan.h"

namespace millrace {

// Internal names the memory: the ledger differs from what the blocks take, a budget is passed, or a
// stage's ring does not hold what streams through it. The plan's stages and blocks have been
// checked.
absl::Status CheckPlanMemory(const PlacementProblem& problem, const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_MEMORY_CHECK_H_
