#include "planner/cost_model.h"

#include <algorithm>

namespace millrace {
namespace {

double Seconds(Bytes bytes, Bandwidth rate) { return absl::ToDoubleSeconds(bytes / rate); }

}  // namespace

CostModel::CostModel(const PlacementProblem& problem, const MemoryBudget& memory)
    : problem_(problem), memory_(memory) {}

// Weights and cache that one decoded token reads of a block. The embedding gives one row.
Bytes CostModel::DecodeBytes(int block) const {
  const Block& b = memory_.blocks()[block];
  if (b.kind == BlockKind::kEmbedding) {
    const int t = problem_.model.FindTensor(TensorRole::kTokenEmbedding);
    return Bytes(b.weights.count() / std::max<int64_t>(1, problem_.model.tensors[t].rows()));
  }
  const Bytes cache(memory_.Kv(block).count() / std::max(1, problem_.slots) / 2);
  return b.weights + cache;
}

bool CostModel::HostRouteIsFaster(const HostSpec& host, const DeviceSpec& device) {
  return host.dram_bandwidth > device.h2d_bandwidth;
}

double CostModel::DecodeSeconds(const HostSpec& host, const DeviceSpec& device, int first, int end,
                                const std::vector<bool>& host_home) const {
  double seconds = 0;
  const bool gpu = device.kind == DeviceKind::kGpu;
  const Bandwidth host_rate = std::max(host.dram_bandwidth, device.h2d_bandwidth);
  const Bandwidth device_rate = device.memory_bandwidth * (gpu ? kGpuDecodeEfficiency : 1.0);
  for (int b = first; b < end; ++b) {
    const bool host_block = !host_home.empty() && host_home[static_cast<size_t>(b - first)];
    seconds += Seconds(DecodeBytes(b), host_block ? host_rate : device_rate);
    const BlockKind kind = memory_.blocks()[b].kind;
    if (gpu && (kind == BlockKind::kAttention || kind == BlockKind::kFeedForward)) {
      seconds += kGpuHalfLayerSeconds;
    }
  }
  return seconds;
}

double CostModel::PrefillSeconds(const DeviceSpec& device, int first, int end,
                                 const std::vector<bool>& host_home, int tokens) const {
  const int passes = (tokens + problem_.max_pass_tokens - 1) / problem_.max_pass_tokens;
  double seconds = 0;
  for (int b = first; b < end; ++b) {
    const Block& block = memory_.blocks()[b];
    if (block.kind == BlockKind::kEmbedding) continue;
    int64_t parameters = 0;
    for (int t : block.tensors) {
      parameters += problem_.model.tensors[t].rows() * problem_.model.tensors[t].cols();
    }
    // The head runs for one row of the prompt only.
    const double rows = block.kind == BlockKind::kHead ? 1 : tokens;
    const double compute =
        device.prefill_flops > 0 ? 2.0 * static_cast<double>(parameters) * rows / device.prefill_flops
                                 : 0;
    const bool host_block = !host_home.empty() && host_home[static_cast<size_t>(b - first)];
    const Bandwidth rate = host_block ? device.h2d_bandwidth : device.memory_bandwidth;
    const double move =
        Seconds(block.weights, rate) * (block.kind == BlockKind::kHead ? 1 : passes);
    seconds += std::max(compute, move);
  }
  return seconds;
}

double CostModel::HopSeconds(const LinkSpec& link, int tokens) const {
  const Bytes hidden(static_cast<int64_t>(problem_.model.d_model) * 4 * tokens);
  return absl::ToDoubleSeconds(link.latency) + Seconds(hidden, link.bandwidth);
}

}  // namespace millrace
