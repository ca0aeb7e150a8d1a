#include "worker/stage_blocks.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::Status CheckShares(const BlockPlacement& placement, int d_ff) {
  int before = placement.host_route_max_tokens;
  for (const CpuShare& share : placement.cpu_shares) {
    const bool part = share.units % kUnitGrain == 0 || share.units == d_ff;
    if (placement.home != Home::kHost || !part || share.units < 0 || share.units > d_ff ||
        share.max_tokens <= before) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the plan splits ", placement.name, " at unit ", share.units, " of ", d_ff,
          " in passes of ", before + 1, " to ", share.max_tokens, " tokens"));
    }
    before = share.max_tokens;
  }
  return absl::OkStatus();
}

}  // namespace

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
  } else if (!loaded.host_home) {
    MILLRACE_ASSIGN_OR_RETURN(loaded.weights,
                              PlaceFeedForward(*backend_, model_, block.layer, Home::kDevice));
  } else {
    MILLRACE_RETURN_IF_ERROR(PlaceHostHomed(placement, loaded));
  }
  blocks_.push_back(std::move(loaded));
  return absl::OkStatus();
}

// Every part that some pass needs, where it is computed: what the CPU computes in every pass never comes
// to the device.
absl::Status StageBlocks::PlaceHostHomed(const BlockPlacement& placement, Loaded& block) {
  block.placement = placement;
  block.d_ff = model_.spec().layers[static_cast<size_t>(block.layer)].d_ff;
  MILLRACE_RETURN_IF_ERROR(CheckShares(placement, block.d_ff));
  std::set<int> units;
  if (placement.host_route_max_tokens > 0) units.insert(block.d_ff);
  int before = placement.host_route_max_tokens;
  for (const CpuShare& share : placement.cpu_shares) {
    if (before < max_pass_tokens_) units.insert(share.units);
    before = share.max_tokens;
  }
  if (before < max_pass_tokens_) units.insert(0);
  FeedForwardWeights whole;
  for (const int cpu : units) {
    if (cpu == 0) {
      MILLRACE_ASSIGN_OR_RETURN(
          whole, PlaceFeedForward(*backend_, model_, block.layer, placement.home));
      continue;
    }
    MILLRACE_CHECK(host_ != nullptr);
    if (cpu == block.d_ff) {
      MILLRACE_RETURN_IF_ERROR(host_->PlaceFeedForward(block.layer));
      continue;
    }
    MILLRACE_RETURN_IF_ERROR(host_->PlacePart(block.layer, cpu));
    if (whole.norm == nullptr) {
      MILLRACE_ASSIGN_OR_RETURN(
          whole.norm, backend_->PlaceVector(TensorOf(model_, TensorRole::kFfnNorm, block.layer)));
    }
    MILLRACE_ASSIGN_OR_RETURN(block.tails[cpu],
                              PlaceUnits(*backend_, model_, block.layer, placement.home,
                                         {cpu, block.d_ff}, whole.norm, *slices_));
  }
  block.weights = whole;
  return absl::OkStatus();
}

const FeedForwardWeights& StageBlocks::OnDeviceOf(const Loaded& block, int tokens) {
  const auto found = block.tails.find(CpuUnitsOf(block, tokens));
  return found == block.tails.end() ? std::get<FeedForwardWeights>(block.weights) : found->second;
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
      const FeedForwardWeights& feed_forward = OnDeviceOf(block, tokens);
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
  return ForwardFeedForward(*backend_, std::get<FeedForwardWeights>(block.weights), next_norm,
                            buffers);
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

// The device's part is queued before the CPU begins; the CPU needs the rows as they were before it.
absl::Status StageBlocks::ComputeTogether(const Pass& pass, const Loaded& block,
                                          const PassBuffers& buffers) {
  const int tokens = static_cast<int>(pass.tokens.size()), units = CpuUnitsOf(block, tokens);
  MILLRACE_RETURN_IF_ERROR(backend_->SendHidden());
  MILLRACE_RETURN_IF_ERROR(
      ForwardFeedForward(*backend_, OnDeviceOf(block, tokens), nullptr, buffers));
  MILLRACE_ASSIGN_OR_RETURN(const FloatView rows, backend_->AwaitHidden());
  MILLRACE_ASSIGN_OR_RETURN(const FloatView part, backend_->PartRows());
  const absl::Time begin = absl::Now();
  MILLRACE_RETURN_IF_ERROR(host_->FeedForwardPart(pass, block.layer, units, rows, part));
  const absl::Time end = absl::Now();
  spans_.push_back({0, Resource::kGpu, device_since_, begin, "", Bytes(0)});
  spans_.push_back({0, Resource::kCpu, begin, end,
                    absl::StrCat("blk.", block.layer, ".ffn[", units, "]"),
                    Bytes(block.bytes.count() / block.d_ff * units)});
  device_since_ = end;
  return backend_->AddPart();
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
    if (CpuUnitsOf(block, tokens) > 0) {
      MILLRACE_RETURN_IF_ERROR(ComputeTogether(pass, block, buffers));
      normed = false;
      continue;
    }
    const bool device_next = i + 1 < blocks_.size() && !OnCpu(blocks_[i + 1], tokens);
    const float* next_norm = device_next ? NormOf(blocks_[i + 1]) : nullptr;
    MILLRACE_RETURN_IF_ERROR(OnDevice(block, next_norm, kv, buffers));
    normed = device_next;
  }
  return absl::OkStatus();
}

}  // namespace millrace
