// The budget flags that plan, run, eval, logits and bench share, in one place.
#ifndef MILLRACE_TOOLS_BUDGET_FLAGS_H_
#define MILLRACE_TOOLS_BUDGET_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "millrace/v1/plan.pb.h"
#include "planner/placement_problem.h"
#include "tools/precision_flags.h"
#include "worker/probe.h"
#include "worker/probe_cache.h"

namespace millrace {

struct BudgetFlags {
  std::string device_memory, host_memory, devices, routes = "auto";
  std::string kv_type;  // empty: f16, or what --precision auto makes of it
  std::string objective = "decode";
  std::string cache_folder = DefaultCacheFolder();
  int context = 0;  // 0: the command's default
  int slots = 1;
  int threads = 0;  // 0: all usable cores
  int max_pass_tokens = 0;  // 0: the planner's choice (planner/pass_size.h)
  std::vector<std::string> pins;
  PrecisionFlags precision;
};

// `flags` outlives `app`'s parse.
void AddBudgetFlags(CLI::App* app, BudgetFlags& flags);

// What does not depend on the machine.
struct PlanWishes {
  DType kv_type = DType::kF16;
  std::vector<Pin> pins;
  RoutePolicy routes = RoutePolicy::kAuto;
  Objective objective;
};

struct Budget {
  ProbeOptions probe;
  PlanWishes wishes;
};

// InvalidArgument names the flag, the value and what would do.
absl::StatusOr<Budget> ParseBudget(const BudgetFlags& flags);
absl::StatusOr<PlanWishes> ParseWishes(const BudgetFlags& flags);
// Of --device-memory, --host-memory, --devices and --threads, the first that was given; else empty.
absl::string_view GivenMachineFlag(const BudgetFlags& flags);

// A size above zero. InvalidArgument names `flag`.
absl::StatusOr<Bytes> ParseSize(absl::string_view flag, absl::string_view text);

// For a planner; its zeros mean defaults. InvalidArgument: flags that only work in this process.
absl::StatusOr<v1::PlanOptions> ToPlanOptions(const BudgetFlags& flags);

// "w0=12MiB,w1=12MiB": hosts that need not exist, each like `like` but with that budget.
absl::StatusOr<ClusterSpec> ParseImaginedWorkers(absl::string_view text, const HostSpec& like);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_BUDGET_FLAGS_H_
