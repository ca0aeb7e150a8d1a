// An objective as passes: what the search adds up and the prediction sums.
#ifndef MILLRACE_PLANNER_OBJECTIVE_PASSES_H_
#define MILLRACE_PLANNER_OBJECTIVE_PASSES_H_

#include <utility>
#include <vector>

#include "planner/cost_model.h"
#include "planner/placement_problem.h"

namespace millrace {

struct WeightedPass {
  PassShape shape;
  double weight = 1;  // passes of that shape in one round
};

// A prompt of `tokens` in passes of up to `size`: at most two shapes, with how many passes of each.
std::vector<std::pair<PassShape, int>> PromptPasses(int tokens, int size);

// The passes in which the objective's sequences decode together, in one round.
WeightedPass DecodePasses(const PlacementProblem& problem);

// One round of problem.objective in passes of up to max_pass_tokens. Never empty.
std::vector<WeightedPass> PassesOf(const PlacementProblem& problem);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_OBJECTIVE_PASSES_H_
