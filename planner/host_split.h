// How much of a stage's host-homed feed-forward weights is best streamed and how much computed by
// the CPU, were blocks a fluid: the formula that the search uses, and where the choice of routes
// begins.
#ifndef MILLRACE_PLANNER_HOST_SPLIT_H_
#define MILLRACE_PLANNER_HOST_SPLIT_H_

#include "planner/pass_simulator.h"
#include "planner/placement_problem.h"

namespace millrace {

// One pass of a stage. Seconds and bytes.
struct FluidPass {
  double device_seconds = 0;  // every block computed on the device, and what else never overlaps
  double streamed_bytes = 0;  // of host-homed blocks that have no other route
  // Of the host-homed feed-forward blocks together:
  double ff_bytes = 0;
  double ff_device_seconds = 0;  // within device_seconds: what the device saves if the CPU computes
  double ff_compute_seconds = 0;  // products on the CPU
  double ff_hop_seconds = 0;      // hops, if the CPU computes them all
};

struct HostSplit {
  double seconds = 0;       // of the pass
  double stream_share = 0;  // of ff_bytes
};

// With share s streamed, x = streamed_bytes + s ff_bytes, CPU time
//   c = (1 - s) (max(ff_bytes / cpu_shared, ff_compute_seconds) + ff_hop_seconds),
// and device time g = device_seconds - (1 - s) ff_device_seconds, GPU and CPU alternate and the
// copies run beside both:
//   T(s) = max(g + c, c + (x - c copy_shared) / copy_alone).
// Both are linear in s: the least is at 0, at 1 or where they cross. Where nothing streams the CPU
// reads at cpu_alone. With a forced policy s is given. Ties go to more streaming.
HostSplit BestHostSplit(const FluidPass& pass, const HostRates& rates, RoutePolicy policy);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_HOST_SPLIT_H_
