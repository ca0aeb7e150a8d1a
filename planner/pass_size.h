// The largest pass where the user names none.
#ifndef MILLRACE_PLANNER_PASS_SIZE_H_
#define MILLRACE_PLANNER_PASS_SIZE_H_

#include "planner/placement_problem.h"

namespace millrace {

inline constexpr int kDefaultPassTokens = 512;
inline constexpr int kGpuPassTokens = 2048;  // prefill on a GPU gains by larger products

// What to try first: kGpuPassTokens where every device is a GPU.
int PreferredPassTokens(const ClusterSpec& cluster);

// True when the problem's activations take at most a tenth of every device's budget.
bool PassFitsWell(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PASS_SIZE_H_
