// What is free on this machine now, against what a plan takes of it: looked at before stages load.
#ifndef MILLRACE_WORKER_LIVE_MEMORY_H_
#define MILLRACE_WORKER_LIVE_MEMORY_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/cluster_spec.h"
#include "proto/placement_plan.h"

namespace millrace {

// Where free memory is read: the system and the CUDA runtime, or a test.
struct MemorySource {
  // Beside what this process has; nothing where the system does not tell.
  std::function<std::optional<Bytes>()> host_available;
  // Of the GPU with that hardware index, this process's context (made if there is none) already
  // taken. An error: it cannot be asked, and whoever loads there will say why.
  std::function<absl::StatusOr<Bytes>(int index)> gpu_free;
};

MemorySource ThisMachine();

struct Shortage {
  std::string memory;  // "gpu0", "host memory"
  Bytes takes;         // by the plan, beside what the process has by itself
  Bytes free;
};

// Of the memories that `plan` uses on `worker`, those that no longer hold it. The ledger's overhead
// (context, libraries, process image) is not counted: this process has it by now. Logical devices
// on the same hardware count together, and CPU devices with the host. Of host memory a 64th of what
// the plan takes may be missing: what the system calls available is an estimate.
std::vector<Shortage> FindShortages(const PlacementPlan& plan, const WorkerId& worker,
                                    const MemorySource& source);

// OK where there are none; else FailedPrecondition with each memory's figures and what to do about
// it, which `remedy` ends.
absl::Status ShortageError(const std::vector<Shortage>& shortages, absl::string_view remedy);

// `host` as it was probed, its budgets no larger than what is free now: a plan for it has no
// shortages. Logical devices on the same hardware give in proportion.
HostSpec BudgetsNow(HostSpec host, const MemorySource& source);

}  // namespace millrace

#endif  // MILLRACE_WORKER_LIVE_MEMORY_H_
