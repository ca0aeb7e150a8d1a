// StageBlocks: the half layers of one stage, where each one's weights are and who computes it, and a
// pass through them.
//
// A block is resident on the stage's device, or its weights are in host memory. Then, by the size of the
// pass (CpuWork), the CPU computes it, or its weights are streamed to the device, or the CPU computes
// its first units while the device computes the others from streamed slices, and the device adds the
// two. Between a device and the CPU the residual stream changes hands, and such a part of a block's sum;
// nothing else does.
#ifndef MILLRACE_WORKER_STAGE_BLOCKS_H_
#define MILLRACE_WORKER_STAGE_BLOCKS_H_

#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/placement_plan.h"
#include "worker/backend/backend.h"
#include "worker/decoder_block.h"
#include "worker/host_route.h"
#include "worker/kv_cache.h"
#include "worker/model/model.h"
#include "worker/pass.h"
#include "worker/resource_use.h"

namespace millrace {

// Belongs to its stage's thread. Model, backend and host route outlive it.
class StageBlocks {
 public:
  // `host`: null where no block of the stage is homed on the host. `slices` outlives the backend.
  StageBlocks(const Model& model, int max_pass_tokens, Backend* backend, HostRoute* host,
              TensorSlices* slices)
      : model_(model),
        max_pass_tokens_(max_pass_tokens),
        backend_(backend),
        host_(host),
        slices_(slices) {}

  // Blocks are placed in the order of the stage. An attention or a feed-forward block.
  absl::Status Place(const Block& block, const BlockPlacement& placement);

  // True when passes run on the device alone, from resident weights: they may be recorded.
  bool Resident() const;
  // The groups of weights that a pass of `tokens` reads on the device, in order.
  std::vector<WeightsId> Order(int tokens) const;
  // The pass through all blocks; buffers.hidden holds its rows before and after.
  absl::Status Forward(const Pass& pass, const KvCache& kv, const PassBuffers& buffers);

  // Of the last Forward: what the CPU computed, and when the device had its turn before.
  std::vector<BusySpan> TakeSpans() { return std::move(spans_); }

 private:
  struct Loaded {
    int layer = -1;
    bool host_home = false;
    Bytes bytes;  // in the file
    std::variant<AttentionWeights, FeedForwardWeights> weights;  // as the device has them, whole
    // Of a feed-forward block in host memory:
    BlockPlacement placement;
    int d_ff = 0;  // 0: of another block
    std::map<int, FeedForwardWeights> tails;  // on the device, by the units that the CPU computes
  };
  // Those that the CPU computes in a pass of `tokens`.
  static int CpuUnitsOf(const Loaded& block, int tokens) {
    return block.d_ff > 0 ? CpuWorkOf(block.placement).Units(tokens, block.d_ff) : 0;
  }
  static bool OnCpu(const Loaded& block, int tokens) {
    return block.d_ff > 0 && CpuUnitsOf(block, tokens) == block.d_ff;
  }
  // The device's part in a pass in which it has one.
  static const FeedForwardWeights& OnDeviceOf(const Loaded& block, int tokens);
  static const float* NormOf(const Loaded& block);
  absl::Status OnDevice(const Loaded& block, const float* next_norm, const KvCache& kv,
                        const PassBuffers& buffers);
  absl::Status PlaceHostHomed(const BlockPlacement& placement, Loaded& block);
  absl::Status ComputeOnCpu(const Pass& pass, const Loaded& block);
  absl::Status ComputeTogether(const Pass& pass, const Loaded& block, const PassBuffers& buffers);

  const Model& model_;
  const int max_pass_tokens_;
  Backend* const backend_;
  HostRoute* const host_;
  TensorSlices* const slices_;
  std::vector<Loaded> blocks_;
  std::vector<BusySpan> spans_;
  absl::Time device_since_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STAGE_BLOCKS_H_
