#include "planner/stage_bound.h"

#include <algorithm>
#include <limits>

namespace millrace {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

StageBound::StageBound(const StageClasses& classes, double weight)
    : classes_(classes),
      weight_(weight),
      prices_(static_cast<size_t>(classes.size()), 0.0),
      next_(static_cast<size_t>(classes.blocks() + 1) * prices_.size(), kInfinity),
      rest_(next_),
      next_end_(next_.size(), 0),
      rest_class_(next_.size(), 0) {
  if (weight == 0) PriceByLength();
  root_ = Evaluate();
}

// Where a stage costs its price alone, a good price is what it can hold at most.
void StageBound::PriceByLength() {
  for (int c = 0; c < classes_.size(); ++c) {
    int longest = 0;
    for (int first = 0; first < classes_.blocks(); ++first) {
      const std::vector<StageArc>& arcs = classes_.all()[c].arcs[first];
      if (!arcs.empty()) longest = std::max(longest, arcs.back().end - first);
    }
    prices_[c] = static_cast<double>(longest) / classes_.blocks();
  }
}

double StageBound::AllPrices() const {
  double sum = 0;
  for (int c = 0; c < classes_.size(); ++c) sum += prices_[c] * classes_.devices(c);
  return sum;
}

double StageBound::Evaluate() {
  const int n = classes_.blocks(), count = classes_.size();
  std::fill(rest_.end() - count, rest_.end(), 0.0);
  for (int i = n - 1; i >= 0; --i) {
    double* next = &next_[static_cast<size_t>(i * count)];
    for (int c = 0; c < count; ++c) {
      next[c] = kInfinity;
      for (const StageArc& arc : classes_.all()[c].arcs[i]) {
        const double cost = weight_ * arc.seconds + rest_[arc.end * count + c];
        if (cost >= next[c]) continue;
        next[c] = cost;
        next_end_[i * count + c] = arc.end;
      }
      next[c] += prices_[c];
    }
    for (int last = 0; last < count; ++last) {
      double& rest = rest_[i * count + last];
      rest = kInfinity;
      for (int c = 0; c < count; ++c) {
        if (c == last && classes_.devices(c) == 1) continue;
        const double cost = weight_ * classes_.Hop(last, c) + next[c];
        if (cost >= rest) continue;
        rest = cost;
        rest_class_[i * count + last] = c;
      }
    }
  }
  const auto first = std::min_element(next_.begin(), next_.begin() + count);
  first_class_ = static_cast<int>(first - next_.begin());
  return *first - AllPrices();
}

std::vector<double> StageBound::Excess() const {
  const int count = classes_.size();
  std::vector<double> excess;
  for (int c = 0; c < count; ++c) excess.push_back(-classes_.devices(c));
  int c = first_class_;
  for (int i = 0; i < classes_.blocks();) {
    excess[c] += 1;
    i = next_end_[i * count + c];
    if (i < classes_.blocks()) c = rest_class_[i * count + c];
  }
  return excess;
}

void StageBound::Improve(double upper, int rounds) {
  if (root_ == kInfinity || classes_.size() == 0) return;
  constexpr int kPatience = 12;
  std::vector<double> best = prices_, direction(prices_.size(), 0.0);
  double reach = 2;
  int stalled = 0;
  double bound = root_;
  for (int round = 0; round < rounds && root_ < upper && reach > 1e-3; ++round) {
    const std::vector<double> excess = Excess();
    double norm = 0;
    for (size_t c = 0; c < excess.size(); ++c) {
      if (prices_[c] > 0 || excess[c] > 0) norm += excess[c] * excess[c];
    }
    if (norm == 0) break;  // the relaxed path is a placement
    const double step = reach * (upper - bound) / norm;
    for (size_t c = 0; c < excess.size(); ++c) {
      direction[c] = excess[c] + 0.7 * direction[c];  // with some of the last: it zigzags less
      // Prices much above every time would only lose digits.
      prices_[c] = std::clamp(prices_[c] + step * direction[c], 0.0, 1e3 * upper);
    }
    bound = Evaluate();
    if (bound > root_) {
      root_ = bound;
      best = prices_;
      stalled = 0;
    } else if (++stalled == kPatience) {
      stalled = 0;
      reach *= 0.6;
      prices_ = best;
      bound = Evaluate();
      std::fill(direction.begin(), direction.end(), 0.0);
    }
  }
  prices_ = best;
  root_ = Evaluate();
}

}  // namespace millrace
