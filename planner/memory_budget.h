// What a run of blocks takes on a device, in bytes: the arithmetic behind the ledger.
#ifndef MILLRACE_PLANNER_MEMORY_BUDGET_H_
#define MILLRACE_PLANNER_MEMORY_BUDGET_H_

#include <vector>

#include "planner/placement_problem.h"
#include "proto/bytes.h"

namespace millrace {

// Bytes of one stage by purpose. `device` is on the stage's device; `host` is host memory beside a
// GPU (zero on a CPU, whose memory is the host's).
struct StageNeeds {
  Bytes weights;        // on the device
  Bytes kv;
  Bytes activations;
  Bytes overhead;
  Bytes stream_ring;
  Bytes host_weights;   // host-homed blocks of a GPU stage

  Bytes device_total() const { return weights + kv + activations + overhead + stream_ring; }
};

// Precomputed per problem; immutable.
class MemoryBudget {
 public:
  explicit MemoryBudget(const PlacementProblem& problem);

  const std::vector<Block>& blocks() const { return blocks_; }
  int size() const { return static_cast<int>(blocks_.size()); }

  // Blocks [first, end) on `device`; host_home[b - first] marks blocks kept in host memory (GPU
  // only, may be empty for none). On a GPU each purpose is rounded up to kDeviceGrain.
  StageNeeds Needs(const DeviceSpec& device, int first, int end,
                   const std::vector<bool>& host_home) const;

  // Weights of block b within a stage of that kind which begins at `first`. In host memory: as in
  // the file, and a tied output beside the embedding costs only its norm. On a GPU: as laid out
  // there (proto/device_layout.h); nothing is shared, for table and head have different layouts.
  Bytes BlockWeights(DeviceKind kind, int block, int first,
                     const std::vector<bool>& host_home) const;

  // Key and value cache of block b (attention blocks only).
  Bytes Kv(int block) const { return kv_[block]; }

 private:
  const PlacementProblem& problem_;
  std::vector<Block> blocks_;
  std::vector<Bytes> kv_;
  std::vector<Bytes> gpu_weights_;
  Bytes tied_bytes_;  // of the embedding, when the head shares it
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_MEMORY_BUDGET_H_
