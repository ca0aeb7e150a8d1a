#include "planner/memory_budget.h"

#include <algorithm>

#include "proto/device_layout.h"
#include "proto/stream_layout.h"

namespace millrace {
namespace {

Bytes WeightsOnGpu(const ModelSpec& model, const Block& block) {
  Bytes sum;
  for (int t : block.tensors) {
    const TensorSpec& tensor = model.tensors[t];
    if (tensor.shape.size() != 2) {
      sum += DeviceVectorBytes(tensor.cols());
    } else if (block.kind == BlockKind::kEmbedding) {
      sum += RoundUp(tensor.size, kDeviceAlignment);
    } else {
      sum += RoundUp(TiledBytes(tensor.dtype, tensor.rows(), tensor.cols()), kDeviceAlignment);
    }
  }
  return sum;
}

StreamSizes SizesOf(const ModelSpec& model, const Block& block, int first_unit = 0) {
  StreamSizes sizes;
  for (const StreamedGroup& g : StreamedGroupsOf(model, block, first_unit)) {
    sizes.raw_group = std::max(sizes.raw_group, g.raw);
    sizes.tiled_group = std::max(sizes.tiled_group, g.tiled);
    sizes.tiled_block += g.tiled;
  }
  return sizes;
}

}  // namespace

void StreamSizes::Include(const StreamSizes& other) {
  raw_group = std::max(raw_group, other.raw_group);
  tiled_group = std::max(tiled_group, other.tiled_group);
  tiled_block = std::max(tiled_block, other.tiled_block);
}

MemoryBudget::MemoryBudget(const PlacementProblem& problem)
    : problem_(problem), blocks_(BlocksOf(problem.model)) {
  for (const Block& b : blocks_) {
    Bytes kv;
    if (b.kind == BlockKind::kAttention) {
      kv = KvCacheBytes(problem.model.layers[b.layer], problem.kv_type, problem.context,
                        problem.slots);
    }
    kv_.push_back(kv);
    gpu_weights_.push_back(WeightsOnGpu(problem.model, b));
    gpu_vectors_.push_back(BlockVectorBytes(problem.model, b));
    streamed_.push_back(SizesOf(problem.model, b));
  }
  if (problem.model.tied_output) {
    tied_bytes_ = problem.model.tensors[problem.model.FindTensor(TensorRole::kTokenEmbedding)].size;
  }
}

Bytes MemoryBudget::BlockWeights(DeviceKind kind, int block, int first,
                                 const std::vector<bool>& host_home) const {
  const bool gpu = kind == DeviceKind::kGpu;
  const auto on_host = [&](int b) {
    return !gpu || (!host_home.empty() && host_home[static_cast<size_t>(b - first)]);
  };
  if (!on_host(block)) return gpu_weights_[block];
  const bool shared = block == size() - 1 && first == 0 && on_host(0);
  return blocks_[block].weights - (shared ? tied_bytes_ : Bytes(0));
}

Bytes MemoryBudget::Activations(DeviceKind kind, int first, int end) const {
  const ActivationNeeds& needs = problem_.activations_on(kind);
  Bytes sum = needs.body;
  if (first == 0) sum += needs.first_extra;
  if (end == size()) sum += needs.last_extra;
  return sum;
}

Bytes MemoryBudget::HopBuffers() const {
  return Bytes(int64_t{2} * problem_.max_pass_tokens * problem_.model.d_model * 4);
}

int MemoryBudget::Units(int block) const {
  const Block& b = blocks_[block];
  return b.kind == BlockKind::kFeedForward ? problem_.model.layers[b.layer].d_ff : 0;
}

StreamSizes MemoryBudget::LargestStreamed(int block, const CpuWork& work) const {
  const int units = Units(block);
  if (units == 0) return streamed_[block];
  const int least = work.LeastUnits(problem_.max_pass_tokens, units);
  if (least == units) return {};
  return least == 0 ? streamed_[block] : SizesOf(problem_.model, blocks_[block], least);
}

Bytes MemoryBudget::HostActivations(int first, int end, const StageOffload& offload) const {
  int most = 0;
  bool hops = false, disk = false;
  for (int b = first; b < end; ++b) {
    const size_t i = static_cast<size_t>(b - first);
    if (!offload.host_home[i]) continue;
    disk |= offload.OnDisk(i);
    const int largest = offload.WorkOf(i).LargestPass(problem_.max_pass_tokens);
    most = std::max(most, largest);
    hops |= blocks_[b].kind == BlockKind::kEmbedding || largest > 0;
  }
  return (hops ? HopBuffers() : Bytes(0)) + (disk ? kDiskStaging : Bytes(0)) +
         problem_.host_route_bytes(most);
}

StageNeeds MemoryBudget::Needs(const DeviceSpec& device, int first, int end,
                               const StageOffload& offload) const {
  const bool gpu = device.kind == DeviceKind::kGpu;
  const bool offloads = gpu && !offload.host_home.empty();
  StageNeeds needs;
  StreamSizes streamed;
  for (int b = first; b < end; ++b) {
    const size_t i = static_cast<size_t>(b - first);
    const bool host = offloads && offload.host_home[i];
    const Bytes weights = BlockWeights(device.kind, b, first, offload.host_home);
    if (!offload.OnDisk(i)) (host ? needs.host_weights : needs.weights) += weights;
    (offload.KvOnHost(i) ? needs.host_kv : needs.kv) += kv_[b];
    if (!host) continue;
    needs.weights += gpu_vectors_[b];
    streamed.Include(LargestStreamed(b, offload.WorkOf(i)));
  }
  if (offloads) needs.host_activations = HostActivations(first, end, offload);
  needs.stream_ring = offload.ring + StreamStaging(streamed.raw_group);
  needs.activations = Activations(device.kind, first, end);
  needs.overhead = device.overhead;
  if (gpu) {
    needs.overhead += LockedPageTables(needs.host_weights + needs.host_kv);
    for (Bytes* purpose : {&needs.weights, &needs.kv, &needs.activations, &needs.stream_ring}) {
      *purpose = RoundUp(*purpose, kDeviceGrain);
    }
  }
  return needs;
}

}  // namespace millrace
