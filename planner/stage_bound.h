// StageBound: how fast the rest of a placement can be at most, whatever devices are left. It keeps
// the search over stages from looking at nearly all of them.
#ifndef MILLRACE_PLANNER_STAGE_BOUND_H_
#define MILLRACE_PLANNER_STAGE_BOUND_H_

#include <vector>

#include "planner/stage_classes.h"

namespace millrace {

// A Lagrangian relaxation of "every device at most once" (Fisher, "The Lagrangian Relaxation Method
// for Solving Integer Programming Problems", 1981): each use of a device costs a price, each device
// earns it back once, used or not. For any prices the shortest path over blocks, devices repeated
// as often as it likes (but one that is alone of its kind not twice in a row), is a lower bound;
// subgradient steps look for the prices with the best one. That bound is as good as the linear
// relaxation over whole stages.
//
// With a weight of 0, times and hops count nothing: any bound above 0 proves that nothing fits.
class StageBound {
 public:
  // `weight`: of times and hops.
  explicit StageBound(const StageClasses& classes, double weight = 1);

  // At most `rounds` subgradient steps towards `upper`, a time that some placement takes or none
  // exceeds; O(rounds x (arcs + blocks x classes^2)). Keeps the best prices ever seen.
  void Improve(double upper, int rounds);

  // No placement of everything takes less. Infinite: no order of devices, however often each is
  // used, covers all blocks.
  double root() const { return root_; }
  double Price(int c) const { return prices_[c]; }
  // Least time of blocks [first, all) after a stage on class `last`, hop and prices included.
  double Rest(int first, int last) const { return rest_[first * classes_.size() + last]; }
  // Prices earned by all devices.
  double AllPrices() const;

 private:
  void PriceByLength();
  // Fills next_ and rest_ by the prices; the bound.
  double Evaluate();
  // Uses of every class on the shortest path, less its devices.
  std::vector<double> Excess() const;

  const StageClasses& classes_;
  const double weight_;
  double root_ = 0;
  std::vector<double> prices_;
  std::vector<double> next_, rest_;  // [block][class]: from a stage on it, and after one on it
  std::vector<int> next_end_, rest_class_;
  int first_class_ = 0;  // of the shortest path
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_BOUND_H_
