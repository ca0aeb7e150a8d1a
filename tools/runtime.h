// Runtime: a loaded model that generates and scores, in this process or behind a planner.
#ifndef MILLRACE_TOOLS_RUNTIME_H_
#define MILLRACE_TOOLS_RUNTIME_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/solver.h"
#include "proto/placement_plan.h"
#include "tools/budget_flags.h"
#include "worker/engine.h"
#include "worker/live_memory.h"

namespace millrace {

// Any thread may call any of the functions; they live as long as the Runtime.
struct Runtime {
  PlacementPlan plan;
  std::optional<HostSpec> host;  // as probed for the plan; nothing where it was not made here
  std::function<absl::StatusOr<GenerateSummary>(const GenerateRequest&,
                                                const std::function<bool(const GenerateEvent&)>&)>
      generate;
  std::function<absl::StatusOr<std::vector<float>>(const std::vector<TokenId>&)> logits;
  std::function<absl::StatusOr<std::vector<float>>(const std::vector<TokenId>&, int first)>
      log_probs;
  std::function<void(const RequestId&)> cancel;
};

// One of the two is set.
struct RuntimeOrInfeasible {
  std::optional<Runtime> runtime;
  std::optional<Infeasibility> infeasible;
};

struct RuntimeRequest {
  std::string model;      // reference; empty: the demo model
  std::string planner;    // address; empty: in this process
  std::string plan_path;  // a plan to use as it is; empty: make one
  BudgetFlags budget;
  int default_context = 4096;  // used, or the model's if that is less, when --ctx is not given
  int expected_prompt_tokens = 512;
  std::function<void(const PassTrace&)> on_pass;  // in this process only; may be empty
  bool replan = false;  // where what is free no longer holds the plan: plan again, not fail
  MemorySource memory = ThisMachine();  // in this process only
};

// Plans (or takes the plan) and loads, with a progress bar on stderr.
absl::StatusOr<RuntimeOrInfeasible> OpenRuntime(const RuntimeRequest& request);

// The flags that choose a Runtime: MODEL, --planner, --plan and the budget.
void AddRuntimeFlags(CLI::App* app, RuntimeRequest& request);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_RUNTIME_H_
