// The best placement by trying every one: what the search is compared with.
#ifndef MILLRACE_TESTS_PLANNER_BRUTE_FORCE_H_
#define MILLRACE_TESTS_PLANNER_BRUTE_FORCE_H_

#include <vector>

#include "planner/stage_options.h"

namespace millrace {

// Best time over every order of devices and every cut, or -1: exhaustive, no shortcuts.
class BruteForce {
 public:
  explicit BruteForce(const StageTable& table)
      : table_(table), used_(static_cast<size_t>(table.devices()), false) {}

  double Run() {
    Go(0, -1, 0);
    return best_;
  }

 private:
  void Go(int at, int last, double so_far) {
    if (at == table_.size()) {
      if (best_ < 0 || so_far < best_) best_ = so_far;
      return;
    }
    for (int d = 0; d < table_.devices(); ++d) {
      if (used_[d]) continue;
      used_[d] = true;
      const double hop = last >= 0 ? table_.HopSeconds(last, d) : 0;
      for (int j = at + 1; j <= table_.size(); ++j) {
        const StageOption& o = table_.Option(d, at, j);
        if (o.fits) Go(j, d, so_far + hop + o.seconds);
      }
      used_[d] = false;
    }
  }

  const StageTable& table_;
  std::vector<bool> used_;
  double best_ = -1;
};

// Of stages that the search found; -1 for none.
inline double SearchSeconds(const StageTable& table, const std::vector<StageChoice>& stages) {
  double sum = stages.empty() ? -1 : 0;
  for (size_t i = 0; i < stages.size(); ++i) {
    const StageChoice& s = stages[i];
    sum += table.Option(s.device, s.first, s.end).seconds;
    if (i > 0) sum += table.HopSeconds(stages[i - 1].device, s.device);
  }
  return sum;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_PLANNER_BRUTE_FORCE_H_
