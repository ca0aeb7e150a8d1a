// StageSweep: all partial placements of one device, then of two, and so on, as far as they may
// still lead to less than a known time. The inner part of SearchStages.
#ifndef MILLRACE_PLANNER_STAGE_SWEEP_H_
#define MILLRACE_PLANNER_STAGE_SWEEP_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "planner/stage_bound.h"
#include "planner/stage_classes.h"
#include "planner/stage_options.h"
#include "planner/stage_runs.h"

namespace millrace {

struct SweepLimits {
  size_t width = 0;          // sets of devices that go on, of each number of devices
  int64_t most_entries = 0;  // partial placements kept in all, or made at a time; eight bytes each
  int64_t most_sums = 0;     // of a partial placement and a run, about a nanosecond each
};

// What a sweep may leave out. All outlive it.
struct SweepBounds {
  const StageBound& seconds;
  const StageBound& room;  // of weight 0
  double upper = 0;        // only what takes less is of interest
};

// Dynamic programming over (devices used, hop group of the last, blocks placed): of equal ones the
// fastest is kept. Blocks placed are a row of values for one set of devices, so that one more
// device is a min-plus product of short rows.
class StageSweep {
 public:
  // `classes` outlives it.
  StageSweep(const StageClasses& classes, const SweepBounds& bounds, const SweepLimits& limits);

  void Run();

  bool found() const { return best_level_ > 0; }
  double upper() const { return upper_; }  // the time of the best found, or as given
  // The least that what was left out for the limits could have come to; infinite: nothing was.
  double left_out() const { return left_out_; }
  int64_t entries() const { return entries_; }
  std::vector<StageChoice> Trace() const;

 private:
  struct Row {
    UsedDevices used = 0;
    double unearned = 0;  // prices of the devices not used
    double unearned_room = 0;
    double least = 0;       // of every placement that goes on from here
    int last = -1;          // a class of the hop group, one of its devices used
    int low = 0, high = 0;  // blocks placed: [low, high)
    size_t at = 0;          // of `low` in Level::seconds
  };
  struct Level {
    std::vector<Row> rows;
    std::vector<double> seconds;
  };

  // One device more than in the last level.
  Level Next(const Level& level);
  void Extend(const Level& level, const Row& row, int c, Level& next);
  // The row of the set and class within `next`, made if it is new; null: there is no room for it.
  Row* RowOf(const Row& from, int c, Level& next);
  // Keeps complete placements, drops hopeless entries, and of the rows only so many.
  Level Settle(Level wide);
  void KeepBest(const Level& wide);
  // Drops what the same devices, another of them last, do faster whatever comes next.
  void DropSlowerOrders(Level& wide) const;
  // Narrows the row to the part that may still come to less than the limit, if any.
  void Shrink(Level& wide, Row& row) const;
  // The most promising rows.
  void Narrow(std::vector<Row>& rows);
  void LeaveOut(double least) { left_out_ = std::min(left_out_, least); }
  double HopFrom(int last, int c) const { return last < 0 ? 0 : group_hops_[GroupOf(last)][c]; }
  size_t GroupOf(int c) const { return static_cast<size_t>(classes_.all()[c].hop_group); }
  // From a time to what of it counts as less.
  double Limit() const { return upper_ * (1 - 1e-12); }

  const StageClasses& classes_;
  const StageBound& bound_;
  const StageBound& room_;
  const StageRuns runs_;
  const SweepLimits limits_;
  std::vector<std::vector<double>> group_hops_;  // [hop group][class]
  double hop_spread_ = 0;                        // the longest hop less the shortest
  double upper_;
  double left_out_ = std::numeric_limits<double>::infinity();
  int64_t entries_ = 0, sums_ = 0;
  std::vector<Level> levels_;  // by devices used
  absl::flat_hash_map<UsedDevices, size_t>
      row_of_;  // by set and hop group, of the level being made
  size_t best_level_ = 0;
  Row best_row_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_SWEEP_H_
