#include "planner/stage_search.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "planner/stage_bound.h"
#include "planner/stage_classes.h"
#include "planner/stage_sweep.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// A time that no placement exceeds; -1: none covers all blocks.
double LongestTime(const StageClasses& classes) {
  std::vector<double> most(static_cast<size_t>(classes.blocks()) + 1, -1.0);
  most.back() = 0;
  for (int i = classes.blocks() - 1; i >= 0; --i) {
    for (const StageClass& c : classes.all()) {
      for (const StageArc& arc : c.arcs[i]) {
        if (most[arc.end] < 0) continue;
        most[i] = std::max(most[i], classes.LongestHop() + arc.seconds + most[arc.end]);
      }
    }
  }
  return most.front();
}

class StageSearch {
 public:
  StageSearch(const StageClasses& classes, const StageSearchLimits& limits)
      : classes_(classes), limits_(limits), bound_(classes), room_(classes, 0) {}

  absl::StatusOr<StageSearchResult> Run() {
    const double longest = LongestTime(classes_);
    if (longest < 0) return result_;
    upper_ = longest * (1 + 1e-6) + 1e-9;  // as if one placement took a little more than any can
    Prepare();
    // Narrow sweeps find good placements, wide ones prove them.
    for (size_t width : {size_t{256}, SIZE_MAX, size_t{4096}}) {
      if (!Done()) Sweep(width);
    }
    if (result_.stages.empty() && !Done()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no placement found among ", result_.entries,
                       " that begin well, and none ruled out: the ", classes_.size(),
                       " kinds of devices hardly hold the model; leave some out (--devices) or "
                       "give them more memory"));
    }
    if (result_.stages.empty()) return result_;
    result_.seconds = upper_;
    result_.bound = std::min(upper_, std::max(proven_, bound_.root()));
    return result_;
  }

 private:
  // Prices for the bounds, by what the first sweeps find.
  void Prepare() {
    if (!NothingFits()) Sweep(16);
    if (Done()) return;
    if (result_.stages.empty()) room_.Improve(1, limits_.bound_rounds);
    if (NothingFits()) return;
    bound_.Improve(upper_, limits_.bound_rounds / 4);
    Sweep(16);
    if (!Done()) bound_.Improve(upper_, limits_.bound_rounds);
  }

  bool NothingFits() {
    const bool nothing = room_.root() > 1e-9 * room_.AllPrices();
    if (nothing) proven_ = upper_;
    return nothing;
  }

  // Nothing is left that could be faster.
  bool Done() const { return std::max(proven_, bound_.root()) >= upper_ * (1 - 1e-11); }

  void Sweep(size_t width) {
    StageSweep sweep(classes_, {bound_, room_, upper_},
                     {width, limits_.most_entries, limits_.most_sums});
    sweep.Run();
    result_.entries += sweep.entries();
    if (sweep.found()) {
      result_.stages = sweep.Trace();
      upper_ = sweep.upper();
    }
    proven_ = std::max({proven_, bound_.root(), std::min(upper_, sweep.left_out())});
  }

  const StageClasses& classes_;
  const StageSearchLimits limits_;
  StageBound bound_, room_;
  StageSearchResult result_;
  double upper_ = 0;   // the time of result_.stages, or what none exceeds
  double proven_ = 0;  // no placement takes less
};

}  // namespace

absl::StatusOr<StageSearchResult> SearchStages(const ClusterSpec& cluster, const StageTable& table,
                                               const StageSearchLimits& limits) {
  return SearchRun(cluster, table, 0, table.size(), limits);
}

absl::StatusOr<StageSearchResult> SearchRun(const ClusterSpec& cluster, const StageTable& table,
                                            int first, int end, const StageSearchLimits& limits) {
  const StageClasses classes(cluster, table, first, end);
  if (classes.bits() > StageClasses::kMostBits) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the cluster has ", table.devices(), " devices of ", classes.size(),
                     " kinds, more than the search can tell apart: leave some out"));
  }
  MILLRACE_ASSIGN_OR_RETURN(StageSearchResult result, StageSearch(classes, limits).Run());
  for (StageChoice& s : result.stages) {
    s.first += first;
    s.end += first;
  }
  return result;
}

}  // namespace millrace
