#include "planner/memory_budget.h"

#include <algorithm>

#include "proto/device_layout.h"

namespace millrace {
namespace {

Bytes GpuWeights(const ModelSpec& model, const Block& block) {
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

}  // namespace

MemoryBudget::MemoryBudget(const PlacementProblem& problem)
    : problem_(problem), blocks_(BlocksOf(problem.model)) {
  for (const Block& b : blocks_) {
    Bytes kv;
    if (b.kind == BlockKind::kAttention) {
      kv = KvCacheBytes(problem.model.layers[b.layer], problem.kv_type, problem.context,
                        problem.slots);
    }
    kv_.push_back(kv);
    gpu_weights_.push_back(GpuWeights(problem.model, b));
  }
  if (problem.model.tied_output) {
    tied_bytes_ =
        problem.model.tensors[problem.model.FindTensor(TensorRole::kTokenEmbedding)].size;
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

StageNeeds MemoryBudget::Needs(const DeviceSpec& device, int first, int end,
                               const std::vector<bool>& host_home) const {
  const bool gpu = device.kind == DeviceKind::kGpu;
  StageNeeds needs;
  Bytes largest_streamed;
  for (int b = first; b < end; ++b) {
    const bool host = gpu && !host_home.empty() && host_home[static_cast<size_t>(b - first)];
    const Bytes weights = BlockWeights(device.kind, b, first, host_home);
    if (host) {
      needs.host_weights += weights;
      largest_streamed = std::max(largest_streamed, blocks_[b].weights);
    } else {
      needs.weights += weights;
    }
    needs.kv += kv_[b];
  }
  needs.stream_ring = largest_streamed * 2;
  const ActivationNeeds& activations = problem_.activations_on(device.kind);
  needs.activations = activations.body;
  if (first == 0) needs.activations += activations.first_extra;
  if (end == size()) needs.activations += activations.last_extra;
  needs.overhead = device.overhead;
  if (gpu) {
    for (Bytes* purpose :
         {&needs.weights, &needs.kv, &needs.activations, &needs.stream_ring}) {
      *purpose = RoundUp(*purpose, kDeviceGrain);
    }
  }
  return needs;
}

}  // namespace millrace
