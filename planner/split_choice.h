// ChooseShares: in which passes host-homed feed-forward blocks are split between CPU and GPU, and where.
#ifndef MILLRACE_PLANNER_SPLIT_CHOICE_H_
#define MILLRACE_PLANNER_SPLIT_CHOICE_H_

#include "planner/memory_budget.h"
#include "planner/stage_steps.h"

namespace millrace {

// A split has to promise this much of a pass without one: it costs two hops of each block that the
// simulator knows only roughly, and its sums are taken in another order.
inline constexpr double kSplitWorth = 0.97;

// A feed-forward block is cut at multiples of this many units, a multiple of kUnitGrain: about 28 to a
// block, or as few as eight where streamed columns of its down matrix then begin at multiples of 16 bytes
// (eight super-blocks of Q6_K), as copy engines like their rows.
int CutGrain(const ModelSpec& model, const Block& block);

// `whole` has homes, ring and routes, and no shares. For each pass size of the ladder of ChooseRoutes
// the simulator compares it with splits: all choosable blocks (or every second or fourth, the others
// streamed) cut at the same share of their units on average, tried at some dozen shares near the best. With
// RoutePolicy::kAuto a split is taken where it is better by kSplitWorth, with kSplit where it is better
// than streaming everything. What is on disk, or has fewer than two cuts, keeps its route.
StageOffload ChooseShares(const StageView& stage, const StageOffload& whole);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SPLIT_CHOICE_H_
