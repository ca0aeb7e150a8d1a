// Predicted time of blocks, each on the resource that computes it: weights read once per pass at
// the memory's bandwidth, or the multiply-adds of its rows, whichever is longer.
#ifndef MILLRACE_PLANNER_COST_MODEL_H_
#define MILLRACE_PLANNER_COST_MODEL_H_

#include "absl/time/time.h"
#include "planner/memory_budget.h"
#include "planner/placement_problem.h"

namespace millrace {

// Decode on a GPU: the share of its measured read bandwidth that the matrix kernels reach, and what
// a half layer costs beside its bytes (launches, norms, the attention's latency). Defaults from
// first measurements, to be replaced by figures of the probe.
inline constexpr double kGpuDecodeEfficiency = 0.75;
inline constexpr double kGpuHalfLayerSeconds = 6e-6;

// Each block that the CPU computes for a GPU stage: hidden states down and up, waking the threads.
// Estimate, beside the bytes that cross the link.
inline constexpr double kHostHopSeconds = 40e-6;
// Rows of a host-homed embedding: gathered by the CPU, copied up. Estimate.
inline constexpr double kHostEmbedSeconds = 10e-6;
// Sustained flops of one CPU thread where no one has measured: half of what 256-bit f32 units do.
inline constexpr double kDefaultFlopsPerThread = 50e9;

// The rows of one pass: of one prompt, or of `tokens` sequences that decode one token each, their
// caches half full.
struct PassShape {
  int tokens = 1;
  bool prefill = false;
};

class CostModel {
 public:
  CostModel(const PlacementProblem& problem, const MemoryBudget& memory);

  // The block computed on `device`, its weights there. Seconds.
  double DeviceSeconds(const DeviceSpec& device, int block, PassShape pass) const;
  // The products of a block on the host's CPU if its weights came for nothing. Seconds.
  double HostComputeSeconds(const HostSpec& host, int block, PassShape pass) const;
  // Hidden states down to the CPU and back. Seconds.
  double HostHopSeconds(const DeviceSpec& device, PassShape pass) const;
  // Of a host-homed embedding: everything. Seconds.
  double HostEmbedSeconds(const DeviceSpec& device, PassShape pass) const;
  // `tokens` hidden states from one stage to the next. Seconds.
  double HopSeconds(const LinkSpec& link, int tokens) const;

 private:
  // Multiply-adds x 2 of the block's matrices for the rows that run through it; a single row counts
  // as none: it is bound by memory everywhere.
  double Flops(int block, PassShape pass) const;

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
  std::vector<double> parameters_;  // by block
};

// Measured for the host, or for its CPU device, or kDefaultFlopsPerThread for each thread.
double CpuFlops(const HostSpec& host);

}  // namespace millrace

#endif  // MILLRACE_PLANNER_COST_MODEL_H_
