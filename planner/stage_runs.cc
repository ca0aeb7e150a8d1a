#include "planner/stage_runs.h"

#include <algorithm>
#include <functional>
#include <limits>

namespace millrace {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

StageRuns::StageRuns(const StageClasses& classes, const StageBound& bound)
    : blocks_(classes.blocks()),
      stride_((blocks_ + 1 + kGroup - 1) / kGroup * kGroup),
      seconds_(At(classes.size(), 0), kInfinity),
      least_up_to_(seconds_),
      least_from_(seconds_) {
  for (int c = 0; c < classes.size(); ++c) {
    for (int first = 0; first < blocks_; ++first) {
      const size_t row = At(c, first);
      for (const StageArc& arc : classes.all()[c].arcs[first]) {
        const size_t at = row + static_cast<size_t>(arc.end);
        seconds_[at] = arc.seconds;
        least_from_[at] = arc.seconds + (arc.end < blocks_ ? bound.Rest(arc.end, c) : 0);
        least_up_to_[at] = least_from_[at];
      }
      for (size_t j = 1; j < static_cast<size_t>(stride_); ++j) {
        double& up_to = least_up_to_[row + j];
        up_to = std::min(up_to, least_up_to_[row + j - 1]);
      }
      for (size_t j = static_cast<size_t>(stride_) - 1; j-- > 0;) {
        double& from = least_from_[row + j];
        from = std::min(from, least_from_[row + j + 1]);
      }
      least_.push_back(least_from_[row]);
    }
  }
}

StageRuns::Ends StageRuns::Within(int c, int first, double limit) const {
  const auto up_to = least_up_to_.begin() + static_cast<std::ptrdiff_t>(At(c, first));
  const auto from = least_from_.begin() + static_cast<std::ptrdiff_t>(At(c, first));
  // The first falls with the end, the second grows.
  const auto low =
      std::partition_point(up_to, up_to + stride_, [&](double least) { return least >= limit; });
  const auto high =
      std::partition_point(from, from + stride_, [&](double least) { return least < limit; });
  return {static_cast<int>(low - up_to), static_cast<int>(high - from)};
}

}  // namespace millrace
