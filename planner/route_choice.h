// ChooseRoutes: which host-homed feed-forward blocks the CPU computes, whole or in part, by the size of
// the pass.
#ifndef MILLRACE_PLANNER_ROUTE_CHOICE_H_
#define MILLRACE_PLANNER_ROUTE_CHOICE_H_

#include <vector>

#include "planner/memory_budget.h"
#include "planner/stage_steps.h"

namespace millrace {

// Of `count` things in a row, `chosen` spread evenly: true at i where the integer part of
// (i + 1) chosen / count grows (Bresenham's line, from its middle).
std::vector<bool> SpreadEvenly(int count, int chosen);

// For each pass size of a ladder (1, 2, 4, ... kMaxHostRouteTokens, up to max_pass_tokens) the
// number of blocks that stream is the one that the simulator finds fastest among those near the
// optimum of host_split.h and a coarse grid of others; it never falls from one size to the next,
// and each size adds blocks to those that stream already, spread evenly among those left. A block's
// threshold is the largest size at which the CPU still computes it.
// Then, where the policy allows it, blocks are split in passes for which that is better
// (split_choice.h). Returns `offload` with routes and shares.
// `offload`: homes and ring; its routes are not read. What is on disk always streams.
StageOffload ChooseRoutes(const StageView& stage, const StageOffload& offload);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_ROUTE_CHOICE_H_
