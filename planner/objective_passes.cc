#include "planner/objective_passes.h"

#include <algorithm>

namespace millrace {

std::vector<std::pair<PassShape, int>> PromptPasses(int tokens, int size) {
  std::vector<std::pair<PassShape, int>> passes;
  const int full = tokens / size, rest = tokens % size;
  if (full > 0) passes.push_back({{size, true, (full - 1) * size / 2, tokens}, full});
  if (rest > 0) passes.push_back({{rest, true, full * size, tokens}, 1});
  return passes;
}

WeightedPass DecodePasses(const PlacementProblem& problem) {
  const Objective& o = problem.objective;
  const int rows = std::clamp(o.batch, 1, std::max(1, problem.max_pass_tokens));
  return {{rows, false}, static_cast<double>(o.decode_tokens) * o.batch / rows};
}

std::vector<WeightedPass> PassesOf(const PlacementProblem& problem) {
  const Objective& o = problem.objective;
  const int size = std::max(1, problem.max_pass_tokens);
  std::vector<WeightedPass> passes;
  if (o.decode_tokens > 0) passes.push_back(DecodePasses(problem));
  for (const auto& [shape, count] : PromptPasses(o.prompt_tokens, size)) {
    passes.push_back({shape, static_cast<double>(count) * o.batch});
  }
  if (passes.empty()) passes.push_back({});
  return passes;
}

}  // namespace millrace
