// Planning and running in this process, through the same classes as a cluster.
#ifndef MILLRACE_TOOLS_LOCAL_RUNTIME_H_
#define MILLRACE_TOOLS_LOCAL_RUNTIME_H_

#include <memory>
#include <string>

#include "tools/runtime.h"
#include "worker/model/model.h"

namespace millrace {

// The problem for `model` on this machine, probed under the budget flags. `path` is of its weights,
// whose disk is measured where nothing else holds them, as in the file; empty: they lie on none. The
// problem's model is as it is to be held (--precision).
absl::StatusOr<PlacementProblem> LocalProblem(const ModelSpec& model, const std::string& path,
                                              const RuntimeRequest& request);

// Reads a plan and checks it against the model and the flags given; FailedPrecondition names the
// field that differs.
absl::StatusOr<PlacementPlan> ReadPlanFor(const Model& model, const RuntimeRequest& request);

// Loads what the plan says, with a progress bar on stderr.
absl::StatusOr<Runtime> LoadRuntime(const std::shared_ptr<const Model>& model, PlacementPlan plan,
                                    const RuntimeRequest& request);

absl::StatusOr<RuntimeOrInfeasible> OpenLocalRuntime(const RuntimeRequest& request);

}  // namespace millrace

#endif  // MILLRACE_TOOLS_LOCAL_RUNTIME_H_
