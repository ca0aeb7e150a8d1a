// Machine changes, differences of plans and answers, to and from messages.
#ifndef MILLRACE_PLANNER_QUERY_MESSAGES_H_
#define MILLRACE_PLANNER_QUERY_MESSAGES_H_

#include <string>

#include "absl/status/statusor.h"
#include "millrace/v1/planner.pb.h"
#include "planner/plan_diff.h"
#include "planner/solver.h"
#include "planner/what_if.h"

namespace millrace {

v1::MachineChange ToProto(const MachineChange& change);
// InvalidArgument names the field; of a card that is not known it lists those that are.
absl::StatusOr<MachineChange> FromProto(const v1::MachineChange& wire);

// Without `text`, which is RenderPlanDiff's.
v1::DiffPlansResponse ToProto(const PlanDiff& diff);
PlanDiff FromProto(const v1::DiffPlansResponse& wire);

v1::PlanResponse MakePlanResponse(const SolveResult& result, const ClusterSpec& cluster,
                                  std::string text);
// The answer without its text. InvalidArgument: neither a plan nor a refusal, or a bad plan.
absl::StatusOr<SolveResult> FromProto(const v1::PlanResponse& wire);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_QUERY_MESSAGES_H_
