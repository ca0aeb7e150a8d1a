// BuildPlan: from chosen stages to the PlacementPlan with its ledger and prediction.
#ifndef MILLRACE_PLANNER_PLAN_BUILDER_H_
#define MILLRACE_PLANNER_PLAN_BUILDER_H_

#include <vector>

#include "planner/cost_model.h"
#include "planner/memory_budget.h"
#include "planner/placement_problem.h"
#include "planner/stage_options.h"
#include "proto/placement_plan.h"

namespace millrace {

PlacementPlan BuildPlan(const PlacementProblem& problem, const MemoryBudget& memory,
                        const CostModel& cost, const StageTable& table,
                        const std::vector<StageChoice>& stages);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PLAN_BUILDER_H_
