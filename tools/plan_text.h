// Plans and infeasibilities as text for a terminal.
#ifndef MILLRACE_TOOLS_PLAN_TEXT_H_
#define MILLRACE_TOOLS_PLAN_TEXT_H_

#include <string>

#include "planner/solver.h"
#include "proto/placement_plan.h"

namespace millrace {

// One row per stage, the memory ledger's totals, the prediction. Ends with a newline. `explain`
// adds every block and every line of the ledger.
std::string PlanText(const PlacementPlan& plan, bool explain);

std::string InfeasibleText(const Infeasibility& infeasible);

// "0.42 ms", "1.3 s"; "-" for zero or infinite.
std::string FormatMillis(absl::Duration d);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_PLAN_TEXT_H_
