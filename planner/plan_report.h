// Plans and refusals as text for people, at most 100 columns wide.
#ifndef MILLRACE_PLANNER_PLAN_REPORT_H_
#define MILLRACE_PLANNER_PLAN_REPORT_H_

#include <cstddef>
#include <string>

#include "planner/placement_problem.h"
#include "planner/solver.h"
#include "proto/placement_plan.h"

namespace millrace {

// Stages with their bytes against budgets, predicted speed, and what limits it.
std::string RenderPlanTable(const PlacementPlan& plan);

// The table, then the ledger line by line, where a token's time goes, and (with the problem at hand,
// else null) the gain over simpler placements.
std::string RenderExplain(const PlacementPlan& plan, const PlacementProblem* problem);

std::string RenderInfeasible(const Infeasibility& infeasible);

// Decode of one sequence, what the plan was chosen by where that is something else, decode of all
// slots together, and the time to the first token. Two to four lines.
std::string RenderPredicted(const PlacementPlan& plan);

// "0.42 ms", "57 ms"; "-" for zero or infinite.
std::string RenderMilliseconds(absl::Duration d);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_REPORT_H_
