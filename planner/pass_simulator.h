// SimulatePasses: the passes of one stage as events on three resources, in the runtime's order. A
// pass is a list of steps, one after the other: on the GPU, or on the CPU while the GPU waits, or on both.
// Beside them the copy engine walks the streamed groups cyclically, ahead of the passes and across
// them, as far as the ring has room. CPU and copies share what the host's memory gives.
// Deterministic; fluid rates between events, no chunks: what a chunk's latency adds is below 1%.
#ifndef MILLRACE_PLANNER_PASS_SIMULATOR_H_
#define MILLRACE_PLANNER_PASS_SIMULATOR_H_

#include <vector>

#include "proto/bytes.h"

namespace millrace {

// What host memory gives the CPU's products and the copies together, over what it gives the products
// alone, and what of the link's rate copies then still reach. From decoding 70B Q4_K_M with 24 GiB on
// the reference machine (H200): about 98 + 50.5 GB/s where one row's products alone read 113 and
// copies alone run at 54; a later run had 92.6 + 48.7 where they had 109 and 54.4.
inline constexpr double kDramTogether = 1.32, kLinkShared = 0.93;

// Rates of copies and CPU, bytes per second, alone and both at once: each gets what it can take,
// and where host memory gives less than both ask for, neither less than half of that (max-min
// fair).
struct HostRates {
  double copy_alone = 0, copy_shared = 0;
  double cpu_alone = 0, cpu_shared = 0;
};
// `link`: host to device, alone; `dram`: read by the CPU, alone. A rate that was never measured
// (zero) counts as 1 MB/s: such a plan is possible, and never preferred.
// `beside`: read by the CPU while copies run, where that was measured; else kDramTogether says.
HostRates ShareHostMemory(Bandwidth link, Bandwidth dram, Bandwidth beside = Bandwidth());

struct PassStep {
  // On the GPU, or what a CPU step costs beside reading and computing: hops.
  double fixed_seconds = 0;
  // On the CPU: bytes read of host memory, and the time of the products if nothing were read; the
  // longer of the two counts.
  Bytes cpu_bytes;
  double cpu_compute_seconds = 0;
  // Must have crossed the link before the step begins; zero: resident. A group of stream_layout.h.
  Bytes copied;
  Bytes ring;  // taken from the beginning of the copy to the end of the step
  // Bytes per second that its copy reaches at most, since it comes from a disk; 0: as the link gives.
  double copy_limit = 0;
  // The CPU's part begins at the step's end and goes on beside the steps that follow, up to the one
  // that joins it. One at a time.
  bool cpu_beside = false;
  bool joins = false;  // begins when that part is done
};

struct PassTimes {
  std::vector<double> ends;  // of each pass, seconds from the start
  // Of all passes together, seconds.
  double gpu = 0, cpu = 0, copy = 0;  // busy
  double waited_for_copy = 0;         // neither GPU nor CPU had work
};

// `passes` equal passes after each other, the ring empty at the start. CHECKs that no step asks for
// more than `ring`.
PassTimes SimulatePasses(const std::vector<PassStep>& steps, const HostRates& rates, Bytes ring,
                         int passes);

// Of one pass among many, when the copies have settled: the mean of passes 3 to 10.
struct SteadyPass {
  double seconds = 0;
  double gpu_share = 0, cpu_share = 0, copy_share = 0;  // of that time
};
SteadyPass SimulateSteadyPass(const std::vector<PassStep>& steps, const HostRates& rates,
                              Bytes ring);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_PASS_SIMULATOR_H_
