#include "tools/runtime.h"

#include "tools/local_runtime.h"
#include "tools/planner_client.h"

namespace millrace {

absl::StatusOr<RuntimeOrInfeasible> OpenRuntime(const RuntimeRequest& request) {
  return request.planner.empty() ? OpenLocalRuntime(request) : OpenClusterRuntime(request);
}

void AddRuntimeFlags(CLI::App* app, RuntimeRequest& request) {
  app->add_option("MODEL", request.model,
                  "GGUF file or Hugging Face folder (default: the demo model)");
  app->add_option("--planner", request.planner, "host:port of a millrace-planner to run on");
  app->add_option("--plan", request.plan_path, "use this plan (from `millrace plan -o`)");
  app->add_flag("--replan", request.replan,
                "where free memory no longer holds the plan, plan again with what is there now");
  AddBudgetFlags(app, request.budget);
}

}  // namespace millrace
