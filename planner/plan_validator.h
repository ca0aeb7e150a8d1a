// ValidatePlan: rechecks every rule a plan must keep, with arithmetic of its own: it shares no code
// with the solver, the ledger or the cost model.
#ifndef MILLRACE_PLANNER_PLAN_VALIDATOR_H_
#define MILLRACE_PLANNER_PLAN_VALIDATOR_H_

#include "absl/status/status.h"
#include "planner/placement_problem.h"
#include "proto/placement_plan.h"

namespace millrace {

// Ok, or Internal naming the first rule that is broken: blocks placed once and in order, stages on
// devices that exist and used once, homes legal, pins obeyed, the ledger equal to what the blocks
// take, no budget passed.
absl::Status ValidatePlan(const PlacementProblem& problem, const PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_VALIDATOR_H_
