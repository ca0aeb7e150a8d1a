// Stages on simulated devices, called by the test's own thread.
#ifndef MILLRACE_TESTS_WORKER_THREE_WAY_SIM_STAGES_H_
#define MILLRACE_TESTS_WORKER_THREE_WAY_SIM_STAGES_H_

#include <memory>
#include <utility>
#include <vector>

#include "tests/fakes/sim_backend.h"
#include "worker/local_stages.h"

namespace millrace {

struct SimStages {
  std::unique_ptr<StageRunner> first;
  std::vector<SimBackend*> backends;  // last stage first
};

// All stages of the plan, each with a device of its own. One CPU thread each.
inline absl::StatusOr<SimStages> MakeSimStages(const std::shared_ptr<const Model>& model,
                                               const PlacementPlan& plan,
                                               const SimBackendSpec& spec) {
  SimStages made;
  StageOptions options;
  options.threads = 1;
  options.make_gpu_backend = SimBackends(spec, &made.backends);
  for (int s = static_cast<int>(plan.stages.size()) - 1; s >= 0; --s) {
    std::unique_ptr<StageLink> link = made.first ? MakeLocalLink(std::move(made.first)) : nullptr;
    auto stage = StageRunner::Create(model, plan, s, std::move(link), options);
    if (!stage.ok()) return stage.status();
    made.first = *std::move(stage);
  }
  return made;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_WORKER_THREE_WAY_SIM_STAGES_H_
