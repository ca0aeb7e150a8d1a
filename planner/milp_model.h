// The placement problem as a mixed-integer linear program: an independent statement of what the
// search solves, for a solver that knows nothing of it.
#ifndef MILLRACE_PLANNER_MILP_MODEL_H_
#define MILLRACE_PLANNER_MILP_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "planner/placement_problem.h"

namespace millrace {

enum class MilpScope {
  // For small problems: the least value is the search's, where the search's problem is linear.
  kExact,
  // The least value is no more than the search's, for any problem: disk and cache homes are allowed
  // more freely than the search does, and the order of spilling is left out where it would take
  // most
  // of the model.
  kBound,
};

// In the LP format, for minimising; its objective is in microseconds. Variables, by block b and
// device d (an index into AllDevices): x placed there, o homed in host memory beside it, p the part
// of a feed-forward block that its CPU computes (the share 1 - s of planner/host_split.h times o,
// which is linear as o is 0 or 1), t a stage's time by the linear bounds of that file, r the ring's
// depth, w what a shallow ring adds.
//
// Homes go by the order that planner/spill.h states, but as many as the solver likes. The search
// takes the fewest and, with RoutePolicy::kAuto and kSplit, fixes the share before it adds what a
// shallow ring costs: there the model may come to less, never to more. With kCpu and kStream, or
// where all w are 0, both are the same. kExact leaves out disk and cache homes: compare only where
// the problem has none.
//
// InvalidArgument as ResolvePins. O(devices x blocks^2) lines with kExact and for up to 40 blocks.
absl::StatusOr<std::string> PlacementMilp(const PlacementProblem& problem, MilpScope scope);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_MILP_MODEL_H_
