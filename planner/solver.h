// Solve: the exact search for the fastest placement that fits.
#ifndef MILLRACE_PLANNER_SOLVER_H_
#define MILLRACE_PLANNER_SOLVER_H_

#include <optional>
#include <string>
#include <vector>

#include "planner/placement_problem.h"
#include "proto/placement_plan.h"

namespace millrace {

// Why nothing fits: an answer, not an error.
struct Infeasibility {
  std::string summary;                    // one sentence for people
  std::vector<std::string> smallest_set;  // names of a run of blocks; see planner/infeasibility.h
  Bytes needed;                           // by that set, all purposes
  Bytes available;                        // to it
  // The nearest budget that would do: "worker-1/cpu: 14.2 MiB instead of 8 MiB".
  struct BudgetFix {
    WorkerId worker;
    std::string memory;
    Bytes budget;
    Bytes wanted;
  };
  std::vector<BudgetFix> nearest_budget;
};

// The problem with the CPU beside a GPU left out as a device: its memory and its cores then serve the
// GPU's host-homed blocks. No hosts: there is no such CPU.
PlacementProblem WithCpusLent(const PlacementProblem& problem);

// Where a CPU stands beside GPUs, two searches are compared: the CPU as a device with stages of its own,
// and the CPU and its memory lent to the GPUs' host-homed blocks.
// Exactly one of the two is set. Deterministic: equal problems give equal plans.
struct SolveResult {
  std::optional<PlacementPlan> plan;
  std::optional<Infeasibility> infeasible;
};

// The plan alone, or nothing where nothing fits: what explains it takes many searches. Otherwise as
// Solve.
absl::StatusOr<std::optional<PlacementPlan>> FindPlan(const PlacementProblem& problem);

// InvalidArgument when the problem itself is malformed (no hosts, a pin that names nothing, a
// context of zero): the message names the field. Every plan has passed ValidatePlan; Internal is our
// own bug. Thread-safe: pure.
absl::StatusOr<SolveResult> Solve(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SOLVER_H_
