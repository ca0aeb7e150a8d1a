#include "planner/stage_sweep.h"

#include <algorithm>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What finding the ends of a run takes, in sums, and what each value of a new row does.
constexpr int kLookUp = 20, kNewValue = 4;

// to[j] = min(to[j], base + seconds[j]) for [low, high) and up to kGroup - 1 on either side.
void MinPlus(double base, const double* seconds, StageRuns::Ends ends, double* to) {
  constexpr int kGroup = StageRuns::kGroup;
  for (int j = ends.low / kGroup * kGroup; j < ends.high; j += kGroup) {
    double sums[kGroup];
    for (int k = 0; k < kGroup; ++k) sums[k] = base + seconds[j + k];
    for (int k = 0; k < kGroup; ++k) to[j + k] = sums[k] < to[j + k] ? sums[k] : to[j + k];
  }
}

}  // namespace

StageSweep::StageSweep(const StageClasses& classes, const SweepBounds& bounds,
                       const SweepLimits& limits)
    : classes_(classes),
      bound_(bounds.seconds),
      room_(bounds.room),
      runs_(classes, bound_),
      limits_(limits),
      upper_(bounds.upper) {
  for (int c = 0; c < classes.size(); ++c) {
    if (GroupOf(c) == group_hops_.size()) group_hops_.emplace_back();
    std::vector<double>& hops = group_hops_[GroupOf(c)];
    hops.resize(static_cast<size_t>(classes.size()), 0.0);
    // Within a group all agree on what is left; a device that is used up is not asked about.
    for (int to = 0; to < classes.size(); ++to) {
      if (to != c || classes.devices(c) > 1) hops[static_cast<size_t>(to)] = classes.Hop(c, to);
    }
  }
  hop_spread_ = classes.LongestHop() - classes.ShortestHop();
}

void StageSweep::Run() {
  Level root;
  root.rows.push_back(
      {.unearned = bound_.AllPrices(), .unearned_room = room_.AllPrices(), .high = 1});
  root.seconds = {0.0};
  levels_ = {std::move(root)};
  while (!levels_.back().rows.empty()) levels_.push_back(Next(levels_.back()));
}

StageSweep::Row* StageSweep::RowOf(const Row& from, int c, Level& next) {
  const UsedDevices used = from.used + StageClasses::OneOf(classes_.all()[c]);
  const auto [it, added] = row_of_.try_emplace(used << 8 | GroupOf(c), next.rows.size());
  if (!added) return &next.rows[it->second];
  if (static_cast<int64_t>(next.seconds.size()) > limits_.most_entries) {
    row_of_.erase(it);
    return nullptr;
  }
  Row row{.used = used, .last = c, .at = next.seconds.size()};
  row.unearned = from.unearned - bound_.Price(c);
  row.unearned_room = from.unearned_room - room_.Price(c);
  row.low = classes_.blocks() + 1;
  sums_ += kNewValue * runs_.stride();
  next.rows.push_back(row);
  next.seconds.resize(next.seconds.size() + static_cast<size_t>(runs_.stride()), kInfinity);
  return &next.rows.back();
}

void StageSweep::Extend(const Level& level, const Row& row, int c, Level& next) {
  const double hop = HopFrom(row.last, c);
  const double unearned = row.unearned - bound_.Price(c);
  Row* to = nullptr;
  for (int i = row.low; i < row.high; ++i) {
    const double base = level.seconds[row.at + static_cast<size_t>(i - row.low)] + hop;
    if (base == kInfinity) continue;
    const double limit = Limit() - base + unearned;
    sums_ += 1;
    if (runs_.Least(c, i) >= limit) continue;
    const StageRuns::Ends ends = runs_.Within(c, i, limit);
    sums_ += kLookUp + ends.high - ends.low;
    if (to == nullptr && sums_ <= limits_.most_sums) to = RowOf(row, c, next);
    if (to == nullptr) {
      LeaveOut(base + runs_.Least(c, i) - unearned);
      continue;
    }
    MinPlus(base, runs_.Seconds(c, i), ends, &next.seconds[to->at]);
    to->low = std::min(to->low, ends.low);
    to->high = std::max(to->high, ends.high);
  }
}

StageSweep::Level StageSweep::Next(const Level& level) {
  row_of_.clear();
  Level next;
  for (const Row& row : level.rows) {
    for (int c = 0; c < classes_.size(); ++c) {
      if (classes_.Free(row.used, c)) Extend(level, row, c, next);
    }
  }
  return Settle(std::move(next));
}

void StageSweep::KeepBest(const Level& wide) {
  for (const Row& row : wide.rows) {
    const double seconds = wide.seconds[row.at + static_cast<size_t>(classes_.blocks())];
    if (seconds >= Limit()) continue;
    upper_ = seconds;
    best_level_ = levels_.size();
    best_row_ = row;
  }
}

void StageSweep::DropSlowerOrders(Level& wide) const {
  absl::flat_hash_map<UsedDevices, std::vector<size_t>> of_set;
  for (size_t r = 0; r < wide.rows.size(); ++r) of_set[wide.rows[r].used].push_back(r);
  for (const auto& [used, rows] : of_set) {
    if (rows.size() == 1) continue;
    for (size_t j = 0; j < static_cast<size_t>(classes_.blocks()); ++j) {
      double least = kInfinity;
      for (size_t r : rows) least = std::min(least, wide.seconds[wide.rows[r].at + j]);
      for (size_t r : rows) {
        double& seconds = wide.seconds[wide.rows[r].at + j];
        if (seconds > least + hop_spread_) seconds = kInfinity;
      }
    }
  }
}

void StageSweep::Shrink(Level& wide, Row& row) const {
  double* seconds = &wide.seconds[row.at];
  const double no_room = row.unearned_room + 1e-9 * room_.AllPrices();
  const int end = std::min(row.high, classes_.blocks());
  int low = end, high = row.low;
  row.least = kInfinity;
  for (int j = row.low; j < end; ++j) {
    const double least = seconds[j] + bound_.Rest(j, row.last) - row.unearned;
    if (least >= Limit() || room_.Rest(j, row.last) > no_room) {
      seconds[j] = kInfinity;
      continue;
    }
    low = std::min(low, j);
    high = j + 1;
    row.least = std::min(row.least, least);
  }
  row.low = low;
  row.high = high;
}

void StageSweep::Narrow(std::vector<Row>& rows) {
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.least < b.least; });
  size_t kept = 0;
  for (; kept < std::min(rows.size(), limits_.width); ++kept) {
    const int64_t more = rows[kept].high - rows[kept].low;
    if (entries_ + more > limits_.most_entries) break;
    entries_ += more;
  }
  if (kept == rows.size()) return;
  LeaveOut(rows[kept].least);
  rows.resize(kept);
}

StageSweep::Level StageSweep::Settle(Level wide) {
  KeepBest(wide);
  if (group_hops_.size() > 1) DropSlowerOrders(wide);
  Level level;
  for (Row& row : wide.rows) {
    Shrink(wide, row);
    if (row.low < row.high) level.rows.push_back(row);
  }
  Narrow(level.rows);
  for (Row& row : level.rows) {
    const double* from = &wide.seconds[row.at];
    row.at = level.seconds.size();
    level.seconds.insert(level.seconds.end(), from + row.low, from + row.high);
  }
  return level;
}

std::vector<StageChoice> StageSweep::Trace() const {
  std::vector<StageChoice> stages;
  Row row = best_row_;
  double seconds = upper_;
  int end = classes_.blocks();
  // The step before, by the same sums.
  const auto step_back = [&](const Level& level) {
    for (const Row& from : level.rows) {
      for (int c = 0; c < classes_.size(); ++c) {
        if (GroupOf(c) != GroupOf(row.last) ||
            from.used + StageClasses::OneOf(classes_.all()[c]) != row.used ||
            !classes_.Free(from.used, c)) {
          continue;
        }
        for (int i = from.low; i < std::min(from.high, end); ++i) {
          const double before = level.seconds[from.at + static_cast<size_t>(i - from.low)];
          if (before + HopFrom(from.last, c) + runs_.Seconds(c, i)[end] != seconds) continue;
          const int device = classes_.all()[c].devices[classes_.Used(from.used, c)];
          stages.push_back({device, i, end});
          row = from;
          seconds = before;
          end = i;
          return true;
        }
      }
    }
    return false;
  };
  for (size_t level = best_level_; level-- > 0;) MILLRACE_CHECK(step_back(levels_[level]));
  std::reverse(stages.begin(), stages.end());
  return stages;
}

}  // namespace millrace
