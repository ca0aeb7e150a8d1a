// How fast a plan will be: every stage's passes by the simulator where it has host homes, by the
// sum of its blocks where not, and the hops between stages.
#ifndef MILLRACE_PLANNER_PREDICTION_H_
#define MILLRACE_PLANNER_PREDICTION_H_

#include <vector>

#include "planner/cost_model.h"
#include "planner/memory_budget.h"
#include "planner/pass_simulator.h"
#include "planner/placement_problem.h"
#include "proto/placement_plan.h"

namespace millrace {

// Reads the stages, homes, routes and rings of a plan for `problem`. Both outlive it.
class Predictor {
 public:
  Predictor(const PlacementProblem& problem, const MemoryBudget& memory, const PlacementPlan& plan);

  // `batch` sequences decoding together, one token each, half of the cache filled. At most
  // max_pass_tokens. Seconds of the whole pass, hops included.
  double DecodeSeconds(int batch) const;
  // A prompt of `tokens`, passes one after the other, from idle to the first token. Seconds.
  double PrefillSeconds(int tokens) const;
  // One round of the problem's objective. Seconds.
  double ObjectiveSeconds() const;
  // Of stage i alone, a decode pass.
  SteadyPass StagePass(size_t stage, int batch) const;
  // Between all stages. Seconds.
  double HopSeconds(int tokens) const;

 private:
  struct StageInfo {
    const HostSpec* host = nullptr;
    const DeviceSpec* device = nullptr;
    StageOffload offload;
  };

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
  const PlacementPlan& plan_;
  const CostModel cost_;
  std::vector<StageInfo> stages_;
};

// Fills plan.predicted and plan.binding_constraint.
void Predict(const PlacementProblem& problem, const MemoryBudget& memory, PlacementPlan& plan);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PREDICTION_H_
