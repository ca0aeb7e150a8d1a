// Plans and refusals as text for people, at most 100 columns wide.
#ifndef MILLRACE_PLANNER_PLAN_REPORT_H_
#define MILLRACE_PLANNER_PLAN_REPORT_H_

#include <string>

#include "planner/placement_problem.h"
#include "planner/solver.h"
#include "proto/placement_plan.h"

namespace millrace {

// Stages with their bytes against budgets, predicted speed, and what limits it.
std::string RenderPlanTable(const PlacementPlan& plan);

// The table, then the ledger line by line and the gain over simpler placements.
std::string RenderExplain(const PlacementProblem& problem, const PlacementPlan& plan);

std::string RenderInfeasible(const Infeasibility& infeasible);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_REPORT_H_
