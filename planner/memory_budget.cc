#include "planner/memory_budget.h"

#include <algorithm>

namespace millrace {

MemoryBudget::MemoryBudget(const PlacementProblem& problem)
    : problem_(problem), blocks_(BlocksOf(problem.model)) {
  for (const Block& b : blocks_) {
    Bytes kv;
    if (b.kind == BlockKind::kAttention) {
      kv = KvBytesPerToken(problem.model.layers[b.layer], problem.kv_type) * problem.context *
           problem.slots;
    }
    kv_.push_back(kv);
  }
  if (problem.model.tied_output) {
    tied_bytes_ =
        problem.model.tensors[problem.model.FindTensor(TensorRole::kTokenEmbedding)].size;
  }
}

Bytes MemoryBudget::BlockWeights(int block, int first) const {
  const bool shared = first == 0 && block == size() - 1;
  return blocks_[block].weights - (shared ? tied_bytes_ : Bytes(0));
}

StageNeeds MemoryBudget::Needs(const DeviceSpec& device, int first, int end,
                               const std::vector<bool>& host_home) const {
  StageNeeds needs;
  Bytes largest_streamed;
  for (int b = first; b < end; ++b) {
    const bool host = !host_home.empty() && host_home[static_cast<size_t>(b - first)];
    const Bytes weights = BlockWeights(b, first);
    if (host) {
      needs.host_weights += weights;
      largest_streamed = std::max(largest_streamed, weights);
    } else {
      needs.weights += weights;
    }
    needs.kv += kv_[b];
  }
  needs.stream_ring = largest_streamed * 2;
  needs.activations = problem_.activations.body;
  if (first == 0) needs.activations += problem_.activations.first_extra;
  if (end == size()) needs.activations += problem_.activations.last_extra;
  needs.overhead = device.overhead;
  return needs;
}

}  // namespace millrace
