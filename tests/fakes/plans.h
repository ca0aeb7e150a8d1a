// Hand-made plans for tests that do not want the solver in the loop.
#ifndef MILLRACE_TESTS_FAKES_PLANS_H_
#define MILLRACE_TESTS_FAKES_PLANS_H_

#include <algorithm>
#include <string>
#include <vector>

#include "proto/model_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

// `model` cut before the blocks named by `cuts`, all stages on CPUs of this process.
inline PlacementPlan PlanWithCuts(const ModelSpec& model, std::vector<int> cuts, int context,
                                  int slots = 1, DType kv_type = DType::kF32,
                                  int max_pass_tokens = 512) {
  PlacementPlan plan;
  plan.model = model.name;
  plan.model_fingerprint = FingerprintOf(model);
  plan.context = context;
  plan.slots = slots;
  plan.kv_type = kv_type;
  plan.max_pass_tokens = max_pass_tokens;
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(static_cast<int>(2 * model.layers.size() + 2));
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    Stage stage;
    stage.worker = WorkerId("test");
    stage.device = DeviceId("cpu");
    stage.first_block = cuts[i];
    stage.end_block = cuts[i + 1];
    plan.stages.push_back(stage);
  }
  return plan;
}

}  // namespace millrace

#endif  // MILLRACE_TESTS_FAKES_PLANS_H_
