#include "planner/pass_size.h"

namespace millrace {

int PreferredPassTokens(const ClusterSpec& cluster) {
  bool only_gpus = !cluster.hosts.empty();
  for (const HostSpec& host : cluster.hosts) {
    for (const DeviceSpec& d : host.devices) only_gpus &= d.kind == DeviceKind::kGpu;
  }
  return only_gpus ? kGpuPassTokens : kDefaultPassTokens;
}

bool PassFitsWell(const PlacementProblem& problem) {
  for (const HostSpec& host : problem.cluster.hosts) {
    for (const DeviceSpec& d : host.devices) {
      const ActivationNeeds& needs = problem.activations_on(d.kind);
      if ((needs.body + needs.first_extra + needs.last_extra) * 10 > d.budget) return false;
    }
  }
  return true;
}

}  // namespace millrace
