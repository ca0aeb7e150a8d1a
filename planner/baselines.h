// Simple placements that a plan is compared with: what other programs do. Devices are taken in the
// order of the cluster, a CPU as a device of its own; routes and splits of what lies in host memory
// are chosen as for a plan, and the time is predicted as a plan's.
#ifndef MILLRACE_PLANNER_BASELINES_H_
#define MILLRACE_PLANNER_BASELINES_H_

#include <optional>
#include <string>
#include <vector>

#include "planner/placement_problem.h"

namespace millrace {

struct Baseline {
  std::string name;  // "fill by free memory", "proportional to memory", "one device"
  // Predicted seconds of a round of the objective; nullopt: it does not fit.
  std::optional<double> seconds;
};

std::vector<Baseline> ComputeBaselines(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_BASELINES_H_
