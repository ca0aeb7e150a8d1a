// What another machine would do: changes to a cluster, and two plans side by side.
#ifndef MILLRACE_PLANNER_WHAT_IF_H_
#define MILLRACE_PLANNER_WHAT_IF_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/hardware_profiles.h"
#include "planner/solver.h"
#include "proto/cluster_spec.h"

namespace millrace {

struct MachineChange {
  std::vector<const GpuProfile*> more_gpus;  // on the first host, instead of its CPU devices
  // What may be used of a device ("gpu0"), of every GPU ("gpu"), or of the hosts' memory ("host"),
  // on every host alike.
  // Changes follow each other in order. More than there is means that there is more.
  std::vector<std::pair<std::string, Bytes>> budgets;
  std::optional<Bandwidth> link, dram, disk;  // of all GPUs, of all hosts
};

// InvalidArgument: a budget for a device that is not there, a link where there is no GPU.
absl::StatusOr<ClusterSpec> Changed(ClusterSpec cluster, const MachineChange& change);

// The same figures of both, in two columns; of one that does not fit, why.
std::string RenderSideBySide(const SolveResult& as_is, const SolveResult& changed);

// The question's answer on another cluster; nothing where it does not fit.
using PlanOn = std::function<absl::StatusOr<std::optional<PlacementPlan>>(const ClusterSpec&)>;

// One thing more, and the prediction then.
struct Gain {
  std::string change;  // "+1 GiB on gpu0", "+10% link"
  std::optional<Prediction> predicted;
};

// `plan` is for `cluster`: one GiB more of each memory, 10% more of each bandwidth that the plan
// uses. Each is a search of its own, by the search's formula, and predicted by the simulator: a
// gain may be below zero (3% were seen). Errors are plan_on's.
absl::StatusOr<std::vector<Gain>> GainsOfMore(const ClusterSpec& cluster, const PlacementPlan& plan,
                                              const PlanOn& plan_on);

// Against `now`; says so where a gain is below zero.
std::string RenderGains(const std::vector<Gain>& gains, const Prediction& now);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_WHAT_IF_H_
