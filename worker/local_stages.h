// Stages of a plan in this process: loaded side by side, each by the thread that then runs it, and
// chained.
#ifndef MILLRACE_WORKER_LOCAL_STAGES_H_
#define MILLRACE_WORKER_LOCAL_STAGES_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/stage_runner.h"

namespace millrace {

// A link to a stage of the same process: runs `next` as the caller does.
std::unique_ptr<StageLink> MakeLocalLink(std::unique_ptr<StageRunner> next);

struct StageChain {
  std::unique_ptr<StageRunner> first;
  std::vector<Bytes> resident;  // by stage of the chain, as allocated
};

// (stage, done, total); called by one thread at a time, from several.
using StageProgress = std::function<void(int, Bytes, Bytes)>;

// Stages [first, end) of the plan. `next`: the link of the last of them; null where it is the plan's
// last. A single stage is created on the caller's thread and belongs to whoever runs it; of several
// each has its own thread. An error names the stage; where several fail, the first one's.
// Waits for all stages, also where one has failed. `options` are each stage's; progress is told to
// `progress` instead.
absl::StatusOr<StageChain> CreateStageChain(const std::shared_ptr<const Model>& model,
                                            const PlacementPlan& plan, int first, int end,
                                            std::unique_ptr<StageLink> next,
                                            const StageOptions& options,
                                            const StageProgress& progress);

// All stages of a plan in this process; returns the first. `options.on_load_progress` gets the sum
// over stages.
absl::StatusOr<std::unique_ptr<StageRunner>> CreateLocalStages(
    const std::shared_ptr<const Model>& model, const PlacementPlan& plan,
    const StageOptions& options);

}  // namespace millrace

#endif  // MILLRACE_WORKER_LOCAL_STAGES_H_
