#include "worker/stage_blocks.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {

const float* StageBlocks::NormOf(const Loaded& block) {
  return std::visit([](const auto& weights) { return weights.norm; }, block.weights);
}

absl::Status StageBlocks::Place(const Block& block, const BlockPlacement& placement) {
  Loaded loaded;
  loaded.layer = block.layer;
  loaded.host_home = placement.home != Home::kDevice;
  for (int t : block.tensors) loaded.bytes += model_.spec().tensors[static_cast<size_t>(t)].size;
  if (block.kind == BlockKind::kAttention) {
    MILLRACE_ASSIGN_OR_RETURN(loaded.weights,
                              PlaceAttention(*backend_, model_, block.layer, placement.home));
  } else {
    if (loaded.host_home) loaded.host_route_max_tokens = placement.host_route_max_tokens;
    if (loaded.host_route_max_tokens > 0) {
      MILLRACE_CHECK(host_ != nullptr);
      MILLRACE_RETURN_IF_ERROR(host_->PlaceFeedForward(block.layer));
    }
    // What the CPU computes in every pass never comes to the device.
    FeedForwardWeights weights;
    if (loaded.host_route_max_tokens < max_pass_tokens_) {
      MILLRACE_ASSIGN_OR_RETURN(weights,
                                PlaceFeedForward(*backend_, model_, block.layer, placement.home));
    }
    loaded.weights = weights;
  }
  blocks_.push_back(std::move(loaded));
  return absl::OkStatus();
}

bool StageBlocks::Resident() const {
  for (const Loaded& block : blocks_) {
    if (block.host_home) return false;
  }
  return true;
}

std::vector<WeightsId> StageBlocks::Order(int tokens) const {
  std::vector<WeightsId> order;
  for (const Loaded& block : blocks_) {
    if (OnCpu(block, tokens)) continue;
    if (const auto* attention = std::get_if<AttentionWeights>(&block.weights)) {
      order.insert(order.end(), {attention->qkv, attention->output});
    } else {
      const auto& feed_forward = std::get<FeedForwardWeights>(block.weights);
      order.insert(order.end(), {feed_forward.gate_up, feed_forward.down});
    }
  }
  return order;
}

absl::Status StageBlocks::OnDevice(const Loaded& block, const float* next_norm, const KvCache& kv,
                                   const PassBuffers& buffers) {
  const LayerSpec& layer = model_.spec().layers[static_cast<size_t>(block.layer)];
  if (const auto* attention = std::get_if<AttentionWeights>(&block.weights)) {
    return ForwardAttention(*backend_, layer, *attention, kv.layer(block.layer), next_norm,
                            buffers);
  }
  return ForwardFeedForward(*backend_, layer, std::get<FeedForwardWeights>(block.weights),
                            next_norm, buffers);
}

absl::Status StageBlocks::ComputeOnCpu(const Pass& pass, const Loaded& block) {
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, backend_->ReadHidden());
  const absl::Time begin = absl::Now();
  MILLRACE_RETURN_IF_ERROR(host_->FeedForward(pass, block.layer, rows));
  const absl::Time end = absl::Now();
  spans_.push_back({0, Resource::kGpu, device_since_, begin, "", Bytes(0)});
  spans_.push_back({0, Resource::kCpu, begin, end, absl::StrCat("blk.", block.layer, ".ffn"),
                    block.bytes});
  device_since_ = end;
  return backend_->WriteHidden();
}

absl::Status StageBlocks::Forward(const Pass& pass, const KvCache& kv,
                                  const PassBuffers& buffers) {
  const int tokens = static_cast<int>(pass.tokens.size());
  spans_.clear();
  device_since_ = absl::Now();
  bool normed = false;  // buffers.normed is what the next block takes
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Loaded& block = blocks_[i];
    if (OnCpu(block, tokens)) {
      MILLRACE_RETURN_IF_ERROR(ComputeOnCpu(pass, block));
      normed = false;
      continue;
    }
    if (!normed) {
      MILLRACE_RETURN_IF_ERROR(backend_->RmsNorm(buffers.hidden, NormOf(block), buffers.normed));
    }
    const bool device_next = i + 1 < blocks_.size() && !OnCpu(blocks_[i + 1], tokens);
    const float* next_norm = device_next ? NormOf(blocks_[i + 1]) : nullptr;
    MILLRACE_RETURN_IF_ERROR(OnDevice(block, next_norm, kv, buffers));
    normed = device_next;
  }
  return absl::OkStatus();
}

}  // namespace millrace
