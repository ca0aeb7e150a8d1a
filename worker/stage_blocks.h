// StageBlocks: the half layers of one stage, where each one's weights are and who computes it, and a
// pass through them.
//
// A block is resident on the stage's device, or its weights are in host memory. Then the CPU computes
// passes of up to the block's host_route_max_tokens, and for larger ones the weights are streamed to
// the device. Between a device and the CPU the residual stream changes hands; nothing else does.
#ifndef MILLRACE_WORKER_STAGE_BLOCKS_H_
#define MILLRACE_WORKER_STAGE_BLOCKS_H_

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
  // `host`: null where no block of the stage is homed on the host.
  StageBlocks(const Model& model, int max_pass_tokens, Backend* backend, HostRoute* host)
      : model_(model), max_pass_tokens_(max_pass_tokens), backend_(backend), host_(host) {}

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
    int host_route_max_tokens = 0;
    Bytes bytes;  // in the file
    std::variant<AttentionWeights, FeedForwardWeights> weights;  // as the device has them
  };
  static bool OnCpu(const Loaded& block, int tokens) {
    return tokens <= block.host_route_max_tokens;
  }
  static const float* NormOf(const Loaded& block);
  absl::Status OnDevice(const Loaded& block, const float* next_norm, const KvCache& kv,
                        const PassBuffers& buffers);
  absl::Status ComputeOnCpu(const Pass& pass, const Loaded& block);

  const Model& model_;
  const int max_pass_tokens_;
  Backend* const backend_;
  HostRoute* const host_;
  std::vector<Loaded> blocks_;
  std::vector<BusySpan> spans_;
  absl::Time device_since_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STAGE_BLOCKS_H_
