// ExplainInfeasible: which smallest set of blocks cannot be placed, and which budget would do.
#ifndef MILLRACE_PLANNER_INFEASIBILITY_H_
#define MILLRACE_PLANNER_INFEASIBILITY_H_

#include "absl/status/statusor.h"
#include "planner/pins.h"
#include "planner/placement_problem.h"
#include "planner/solver.h"
#include "planner/stage_options.h"

namespace millrace {

// For a problem that Solve found no stages for. The set is a run of blocks that would not fit were
// it alone in the model, and would without its first or without its last block. The nearest budget is
// the smallest raise of one memory that makes the problem solvable (to within 0.1% and half a MiB),
// or, when no single one does, every device's budget raised by one common amount.
absl::StatusOr<Infeasibility> ExplainInfeasible(const PlacementProblem& problem,
                                                const StageTable& table, const ResolvedPins& pins);

// The search itself, shared with Solve: stages in order, empty when nothing fits.
absl::StatusOr<std::vector<StageChoice>> FindStages(const PlacementProblem& problem,
                                                    const StageTable& table,
                                                    const ResolvedPins& pins);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_INFEASIBILITY_H_
