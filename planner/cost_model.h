// Predicted time of passes: weights read once per pass at the device's memory bandwidth at decode,
// multiply-adds or streamed bytes at prefill, and a hop between stages.
#ifndef MILLRACE_PLANNER_COST_MODEL_H_
#define MILLRACE_PLANNER_COST_MODEL_H_

#include <vector>

#include "absl/time/time.h"
#include "planner/memory_budget.h"
#include "planner/placement_problem.h"

namespace millrace {

// Passes of up to this many tokens are computed by the CPU where a block's home is the host and the
// CPU reads it faster than the link copies it.
inline constexpr int kHostRouteMaxTokens = 32;

// Decode on a GPU: the share of its measured read bandwidth that the matrix kernels reach, and what
// a half layer costs beside its bytes (launches, norms, the attention's latency). Defaults from first
// measurements, to be replaced by figures of the probe.
inline constexpr double kGpuDecodeEfficiency = 0.75;
inline constexpr double kGpuHalfLayerSeconds = 6e-6;

class CostModel {
 public:
  CostModel(const PlacementProblem& problem, const MemoryBudget& memory);

  // One token of one sequence through blocks [first, end), the cache half full. Seconds.
  double DecodeSeconds(const HostSpec& host, const DeviceSpec& device, int first, int end,
                       const std::vector<bool>& host_home) const;
  // `tokens` of a prompt through the same blocks, in passes of max_pass_tokens. Seconds.
  double PrefillSeconds(const DeviceSpec& device, int first, int end,
                        const std::vector<bool>& host_home, int tokens) const;
  // `tokens` hidden states from one stage to the next. Seconds.
  double HopSeconds(const LinkSpec& link, int tokens) const;

  // True when a host-homed block is better computed by the CPU than streamed, at decode.
  static bool HostRouteIsFaster(const HostSpec& host, const DeviceSpec& device);

 private:
  Bytes DecodeBytes(int block) const;

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_COST_MODEL_H_
