#include "planner/cost_model.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "planner/host_rates.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

double PassOverPieces(PassShape pass) {
  if (pass.prefill) return kPromptOverPieces;
  const auto *below = std::begin(kPassOverPieces), *end = std::end(kPassOverPieces);
  while (below + 1 != end && below[1].tokens <= pass.tokens) ++below;
  if (below + 1 == end || pass.tokens <= below->tokens) return below->ratio;
  const double share = static_cast<double>(pass.tokens - below->tokens) /
                       static_cast<double>(below[1].tokens - below->tokens);
  return below->ratio + share * (below[1].ratio - below->ratio);
}

double Seconds(Bytes bytes, Bandwidth rate) { return absl::ToDoubleSeconds(bytes / rate); }

}  // namespace

CostModel::CostModel(const PlacementProblem& problem, const MemoryBudget& memory)
    : problem_(problem), memory_(memory) {
  for (const Block& b : memory.blocks()) {
    double sum = 0;
    for (int t : b.tensors) {
      const TensorSpec& tensor = problem.model.tensors[t];
      sum += static_cast<double>(tensor.rows() * tensor.cols());
    }
    parameters_.push_back(b.kind == BlockKind::kEmbedding ? 0 : sum);
    all_parameters_ += parameters_.back();
  }
  for (const HostSpec& host : problem.cluster.hosts) {
    for (const DeviceSpec& device : host.devices) {
      if (device.times.measured()) tables_.emplace(&device, device.times);
    }
  }
}

int CostModel::Rows(int block, PassShape pass) const {
  // The head runs for one row of a prompt only.
  const bool one = pass.prefill && memory_.blocks()[block].kind == BlockKind::kHead;
  return one ? 1 : pass.tokens;
}

double CostModel::Flops(int block, PassShape pass) const {
  const int rows = Rows(block, pass);
  return rows == 1 ? 0 : 2 * parameters_[block] * rows;
}

double CostModel::DeviceSeconds(const HostSpec& host, const DeviceSpec& device, int block,
                                PassShape pass) const {
  const Block& b = memory_.blocks()[block];
  const bool gpu = device.kind == DeviceKind::kGpu;
  const Bandwidth rate = device.memory_bandwidth * (gpu ? kGpuDecodeEfficiency : 1.0);
  if (b.kind == BlockKind::kEmbedding) {
    const int t = problem_.model.FindTensor(TensorRole::kTokenEmbedding);
    const int64_t rows = std::max<int64_t>(1, problem_.model.tensors[t].rows());
    return Seconds(Bytes(b.weights.count() / rows) * pass.tokens, rate);
  }
  if (gpu && device.times.measured()) return TimedSeconds(device, block, pass);
  const double flops = device.prefill_flops * (gpu ? kGpuPrefillEfficiency : 1.0);
  double compute = flops > 0 ? Flops(block, pass) / flops : 0;
  if (!gpu && !host.cpu_rates.empty()) {
    compute = CpuSeconds(host, block, pass, LinkLoad::kIdle);
  }
  double seconds = std::max(Seconds(b.weights, rate), compute);
  if (!pass.prefill) {
    const Bytes cache(memory_.Kv(block).count() / std::max(1, problem_.slots) / 2);
    seconds += Seconds(cache * pass.tokens, rate);
  }
  return seconds + (gpu && b.kind != BlockKind::kHead ? kGpuHalfLayerSeconds : 0);
}

const DeviceTimeTable& CostModel::TableOf(const DeviceSpec& device) const {
  const auto found = tables_.find(&device);
  MILLRACE_CHECK(found != tables_.end());  // devices are the problem's
  return found->second;
}

double CostModel::TimedSeconds(const DeviceSpec& device, int block, PassShape pass) const {
  const DeviceTimeTable& table = TableOf(device);
  const Block& b = memory_.blocks()[block];
  const int rows = Rows(block, pass);
  std::map<DType, double> bytes;
  double all = 0;
  for (int t : b.tensors) {
    const TensorSpec& tensor = problem_.model.tensors[static_cast<size_t>(t)];
    if (tensor.shape.size() != 2) continue;
    bytes[tensor.dtype] += static_cast<double>(tensor.size.count());
    all += static_cast<double>(tensor.size.count());
  }
  double seconds = 0;
  for (const auto& [type, part] : bytes) {
    seconds += part / all * table.ProductSeconds(type, rows, all);
  }
  seconds *= PowerRatio(device, pass) * PassOverPieces(pass);
  if (b.kind == BlockKind::kHead) return seconds + PassSeconds(device, pass);
  if (b.kind != BlockKind::kAttention) return seconds;
  const LayerSpec& layer = problem_.model.layers[static_cast<size_t>(b.layer)];
  if (!pass.prefill) {
    const double cache =
        static_cast<double>(memory_.Kv(block).count()) / std::max(1, problem_.slots);
    return seconds + table.AttentionSeconds(pass.tokens, cache / 2 * pass.tokens);
  }
  const double cells = pass.tokens * (pass.depth + 0.5 * (pass.tokens + 1));
  const double flops = 4 * cells * layer.heads * layer.head_dim;
  return seconds + device.times.prompt_row_seconds * pass.tokens +
         flops / std::max(1e9, device.times.attention_flops);
}

double CostModel::PassSeconds(const DeviceSpec& device, PassShape pass) const {
  const int outputs = pass.prefill ? 1 : pass.tokens;
  return kEnginePassSeconds + device.times.pass_seconds +
         device.times.output_seconds * (outputs - 1);
}

double CostModel::PowerRatio(const DeviceSpec& device, PassShape pass) const {
  const double ratio = TableOf(device).SustainedRatioOf(pass.tokens);
  if (!pass.prefill) return ratio;
  const double flops = 2 * all_parameters_ * std::max(pass.prompt, pass.tokens);
  const double seconds = flops / std::max(1e9, device.prefill_flops);
  return 1 + (ratio - 1) * (1 - std::exp(-seconds / kPowerSeconds));
}

double CostModel::CpuSeconds(const HostSpec& host, int block, PassShape pass, LinkLoad link) const {
  const double bytes = static_cast<double>(memory_.blocks()[block].weights.count());
  return CpuProductSeconds(host, bytes, parameters_[block], Rows(block, pass), link);
}

double CostModel::HostComputeSeconds(const HostSpec& host, int block, PassShape pass) const {
  return CpuSeconds(host, block, pass, LinkLoad::kCopies);
}

double CostModel::HostHopSeconds(const DeviceSpec& device, PassShape pass) const {
  const Bytes hidden(static_cast<int64_t>(problem_.model.d_model) * 4 * pass.tokens);
  const double link = std::max(1e6, device.h2d_bandwidth.bytes_per_second());
  return kHostHopSeconds + 2 * static_cast<double>(hidden.count()) / link;
}

double CostModel::HostEmbedSeconds(const DeviceSpec& device, PassShape pass) const {
  const Bytes hidden(static_cast<int64_t>(problem_.model.d_model) * 4 * pass.tokens);
  const double link = std::max(1e6, device.h2d_bandwidth.bytes_per_second());
  return kHostEmbedSeconds + static_cast<double>(hidden.count()) / link;
}

double CostModel::HostKvSeconds(const DeviceSpec& device, int block, PassShape pass) const {
  constexpr int kAttentionRows = 128;
  const double link = std::max(1e6, device.h2d_bandwidth.bytes_per_second() * kHostKvEfficiency);
  const double slot = static_cast<double>(memory_.Kv(block).count()) / std::max(1, problem_.slots);
  // Of a prompt, the cells that it fills; of sequences that decode, half of each.
  const double share =
      pass.prefill ? std::min(1.0, static_cast<double>(pass.tokens) / std::max(1, problem_.context))
                   : 1;
  const int reads =
      pass.prefill ? (pass.tokens + kAttentionRows - 1) / kAttentionRows : pass.tokens;
  return reads * share * slot / 2 / link;
}

double CostModel::HopSeconds(const LinkSpec& link, int tokens) const {
  const Bytes hidden(static_cast<int64_t>(problem_.model.d_model) * 4 * tokens);
  return absl::ToDoubleSeconds(link.latency) + Seconds(hidden, link.bandwidth);
}

}  // namespace millrace
