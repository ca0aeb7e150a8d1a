// A stage with homes and routes as the simulator's steps, and what one of its passes takes.
#ifndef MILLRACE_PLANNER_STAGE_STEPS_H_
#define MILLRACE_PLANNER_STAGE_STEPS_H_

#include <vector>

#include "planner/cost_model.h"
#include "planner/host_rates.h"
#include "planner/memory_budget.h"
#include "planner/pass_simulator.h"
#include "planner/placement_problem.h"

namespace millrace {

// Blocks [first, end) on `device` of `host`. All outlive the view.
struct StageView {
  const PlacementProblem& problem;
  const MemoryBudget& memory;
  const CostModel& cost;
  const HostSpec& host;
  const DeviceSpec& device;
  int first = 0;
  int end = 0;

  HostRates rates() const { return RatesBeside(host, device); }
};

// Runs of resident blocks are one step; a streamed block is a step per group, which shares the
// block's time by bytes; a block on the CPU is one step. A split block is a
// hop from which on the CPU works beside the streamed slices, and one back that waits for both.
std::vector<PassStep> StageSteps(const StageView& stage, const StageOffload& offload,
                                 PassShape pass);

// One pass among many like it.
SteadyPass SteadyStagePass(const StageView& stage, const StageOffload& offload, PassShape pass);

// A prompt of `tokens` in passes of up to max_pass_tokens, after a pause: the ring is empty.
// Seconds.
double StagePrefillSeconds(const StageView& stage, const StageOffload& offload, int tokens);

// One round of problem.objective on the stage. Seconds.
double ObjectiveSeconds(const StageView& stage, const StageOffload& offload);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_STAGE_STEPS_H_
