// SearchStages: which devices take which runs of blocks, in which order. Exact.
#ifndef MILLRACE_PLANNER_STAGE_SEARCH_H_
#define MILLRACE_PLANNER_STAGE_SEARCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/stage_options.h"

namespace millrace {

struct StageSearchLimits {
  int64_t most_entries = 20'000'000;  // partial placements held at a time, 8 bytes each
  int64_t most_sums = 800'000'000;    // of one sweep: two or three seconds
  int bound_rounds = 300;             // steps towards a good lower bound
};

struct StageSearchResult {
  std::vector<StageChoice> stages;  // in order; empty: nothing fits, which is proven
  double seconds = 0;               // the stages' and the hops' between them
  // Proven: no placement takes less, to within a relative 1e-9.
  double bound = 0;
  int64_t entries = 0;  // partial placements kept, of all sweeps

  bool proven() const { return seconds <= bound * (1 + 1e-9); }
};

// The least sum of StageOption::seconds and hops over all sequences of devices, each at most once,
// and all cuts of the blocks between them.
//
// 1. Devices that are the same to the search are one class (planner/stage_classes.h).
// 2. Prices on devices give a lower bound of what any partial placement can still lead to
//    (planner/stage_bound.h), and, by counting room alone, the proof that nothing fits.
// 3. Sweeps (planner/stage_sweep.h) keep the fastest way to each set of devices and number of
//    blocks while that bound leaves it below the best placement known: first narrow ones, for good
//    placements, then one that leaves nothing out, which proves the best.
//
// Where that one is cut short by the limits, `bound` is the least that what was left out could have
// come to. Deterministic, and pure. 80 layers over 16 unequal devices of one worker, or of 16
// workers: 0.1 to 1 s; 32 unequal devices reach the limits after some six seconds.
// ResourceExhausted: too many unequal devices (StageClasses::kMostBits), or the limits were reached
// with no placement found and none ruled out.
absl::StatusOr<StageSearchResult> SearchStages(const ClusterSpec& cluster, const StageTable& table,
                                               const StageSearchLimits& limits = {});

// The same of blocks [first, end) alone, as if there were no others.
absl::StatusOr<StageSearchResult> SearchRun(const ClusterSpec& cluster, const StageTable& table,
                                            int first, int end,
                                            const StageSearchLimits& limits = {});

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_SEARCH_H_
