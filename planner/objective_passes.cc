#include "planner/objective_passes.h"

#include <algorithm>

namespace millrace {

std::vector<WeightedPass> PassesOf(const PlacementProblem& problem) {
  const Objective& o = problem.objective;
  const int size = std::max(1, problem.max_pass_tokens);
  std::vector<WeightedPass> passes;
  if (o.decode_tokens > 0) {
    const int rows = std::clamp(o.batch, 1, size);
    passes.push_back({{rows, false}, static_cast<double>(o.decode_tokens) * o.batch / rows});
  }
  const int full = o.prompt_tokens / size, rest = o.prompt_tokens % size;
  const auto add = [&](int rows, int count) {
    if (rows > 0 && count > 0) {
      passes.push_back({{rows, true}, static_cast<double>(count) * o.batch});
    }
  };
  add(size, full);
  add(rest, 1);
  if (passes.empty()) passes.push_back({});
  return passes;
}

}  // namespace millrace
