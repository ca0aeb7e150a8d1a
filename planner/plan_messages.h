// Infeasibility and plan options to and from messages.
#ifndef MILLRACE_PLANNER_PLAN_MESSAGES_H_
#define MILLRACE_PLANNER_PLAN_MESSAGES_H_

#include "absl/status/status.h"
#include "millrace/v1/plan.pb.h"
#include "planner/placement_problem.h"
#include "planner/solver.h"

namespace millrace {

v1::Infeasibility ToProto(const Infeasibility& infeasible);
Infeasibility FromProto(const v1::Infeasibility& infeasible);

// Fills context, slots, kv_type, max_pass_tokens, expected_prompt_tokens and pins. All defaults
// must be resolved (worker.proto DescribeModel does); InvalidArgument names a field that is not.
absl::Status ApplyOptions(const v1::PlanOptions& options, PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_MESSAGES_H_
