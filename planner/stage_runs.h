// StageRuns: the runs of every class as dense rows, each with the least time of a placement that
// goes on with it: what one sweep of the search reads in its inner loop.
#ifndef MILLRACE_PLANNER_STAGE_RUNS_H_
#define MILLRACE_PLANNER_STAGE_RUNS_H_

#include <cstddef>
#include <vector>

#include "planner/stage_bound.h"
#include "planner/stage_classes.h"

namespace millrace {

class StageRuns {
 public:
  // Rows are read in groups of this many ends.
  static constexpr int kGroup = 4;

  StageRuns(const StageClasses& classes, const StageBound& bound);

  // Values of a row of ends: at least blocks + 1, a multiple of kGroup.
  int stride() const { return stride_; }
  // Seconds of the runs from `first` by end; infinite where none fits.
  const double* Seconds(int c, int first) const { return &seconds_[At(c, first)]; }

  struct Ends {
    int low = 0, high = 0;  // [low, high)
  };
  // Ends between the first and the last with which the run and the least rest take less than
  // `limit`, prices as in StageBound::Rest.
  Ends Within(int c, int first, double limit) const;
  // The least of any.
  double Least(int c, int first) const { return least_[static_cast<size_t>(c * blocks_ + first)]; }

 private:
  size_t At(int c, int first) const {
    return static_cast<size_t>(c * blocks_ + first) * static_cast<size_t>(stride_);
  }

  const int blocks_, stride_;
  std::vector<double> seconds_;
  std::vector<double> least_;  // [class][first]
  std::vector<double> least_up_to_,
      least_from_;  // of run and rest, over ends up to and from one on
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_RUNS_H_
