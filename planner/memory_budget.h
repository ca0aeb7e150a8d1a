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
  Bytes weights;  // on the device
  Bytes kv;
  Bytes activations;
  Bytes overhead;
  Bytes stream_ring;   // ring and raw staging
  Bytes host_weights;  // host-homed blocks of a GPU stage
  Bytes host_kv;       // of a GPU stage's attention blocks
  // Pinned buffers for hops and for reading from disk, and the CPU's for what it computes.
  Bytes host_activations;

  Bytes device_total() const { return weights + kv + activations + overhead + stream_ring; }
  Bytes host_total() const { return host_weights + host_kv + host_activations; }
};

// Homes and routes of the blocks of a GPU stage, by block of the run; all empty: all on the device.
struct StageOffload {
  std::vector<bool> host_home;        // not on the device
  std::vector<int> route_max_tokens;  // 0 where not host-homed
  Bytes ring;                         // Stage::stream_ring
  std::vector<bool> on_disk;          // of the host-homed, those whose weights stay on disk
  std::vector<bool> kv_on_host;       // attention blocks whose cache is in host memory
  // BlockPlacement::cpu_shares; may be shorter than the run: no block from there on is split.
  std::vector<std::vector<CpuShare>> cpu_shares;

  CpuWork WorkOf(size_t i) const {
    if (i >= cpu_shares.size()) return {route_max_tokens[i]};
    return {route_max_tokens[i], cpu_shares[i]};
  }
  bool OnDisk(size_t i) const { return i < on_disk.size() && on_disk[i]; }
  bool KvOnHost(size_t i) const { return i < kv_on_host.size() && kv_on_host[i]; }
};

// The larger of what streams: see proto/stream_layout.h.
struct StreamSizes {
  Bytes raw_group, tiled_group;
  Bytes tiled_block;  // all groups of one block

  void Include(const StreamSizes& other);
};

// Precomputed per problem; immutable.
class MemoryBudget {
 public:
  explicit MemoryBudget(const PlacementProblem& problem);

  const std::vector<Block>& blocks() const { return blocks_; }
  int size() const { return static_cast<int>(blocks_.size()); }

  // Blocks [first, end) on `device`. On a GPU each purpose is rounded up to kDeviceGrain.
  StageNeeds Needs(const DeviceSpec& device, int first, int end, const StageOffload& offload) const;

  // Weights of block b where they are homed, within a stage of that kind which begins at `first`.
  // In host memory: as in the file, and a tied output beside the embedding costs only its norm. On
  // a GPU: as laid out there (proto/device_layout.h); nothing is shared, for table and head have
  // different layouts.
  Bytes BlockWeights(DeviceKind kind, int block, int first,
                     const std::vector<bool>& host_home) const;

  // Units of block b; 0 where it is no feed-forward block.
  int Units(int block) const;
  // Key and value cache of block b (attention blocks only).
  Bytes Kv(int block) const { return kv_[block]; }
  // Of block b on a GPU: all of it, and its norms and biases, which stay when it is host-homed.
  Bytes GpuWeights(int block) const { return gpu_weights_[block]; }
  Bytes GpuVectors(int block) const { return gpu_vectors_[block]; }
  const StreamSizes& Streamed(int block) const { return streamed_[block]; }
  // Of the embedding, where the head shares it.
  Bytes TiedBytes() const { return tied_bytes_; }
  Bytes Activations(DeviceKind kind, int first, int end) const;
  // Pinned buffers through which hidden states cross: [2, max_pass_tokens, d_model] f32.
  Bytes HopBuffers() const;

 private:
  Bytes HostActivations(int first, int end, const StageOffload& offload) const;
  // The largest of what a host-homed block ever streams.
  StreamSizes LargestStreamed(int block, const CpuWork& work) const;

  const PlacementProblem& problem_;
  std::vector<Block> blocks_;
  std::vector<Bytes> kv_;
  std::vector<Bytes> gpu_weights_, gpu_vectors_;
  std::vector<StreamSizes> streamed_;
  Bytes tied_bytes_;
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_MEMORY_BUDGET_H_
