// ChooseShares: in which passes host-homed feed-forward blocks are split between CPU and GPU, and where.
#ifndef MILLRACE_PLANNER_SPLIT_CHOICE_H_
#define MILLRACE_PLANNER_SPLIT_CHOICE_H_

#include "planner/memory_budget.h"
#include "planner/stage_steps.h"

namespace millrace {

// A feed-forward block is cut at multiples of this many units, a multiple of kUnitGrain: about 28 to a
// block, or as few as eight where streamed columns of its down matrix then begin at multiples of 16 bytes
// (eight super-blocks of Q6_K), as copy engines like their rows.
int CutGrain(const ModelSpec& model, const Block& block);

// `whole` has homes, ring and routes, and no shares. For each pass size of the ladder of ChooseRoutes
// the simulator compares streaming all choosable blocks with splits: all of them (or every second or
// fourth, the others streamed) cut at the same share of their units on average, tried at some dozen
// shares near the best. What is on disk, or has fewer than two cuts, keeps its route.
StageOffload ChooseShares(const StageView& stage, const StageOffload& whole);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_SPLIT_CHOICE_H_
