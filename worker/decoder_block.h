// DecoderBlock: the forward pass of half a layer as a list of ops.
#ifndef MILLRACE_WORKER_DECODER_BLOCK_H_
#define MILLRACE_WORKER_DECODER_BLOCK_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/model_spec.h"
#include "worker/backend/backend.h"
#include "worker/kv_cache.h"
#include "worker/model/model.h"

namespace millrace {

// Weights of the attention half. Null where the file has no such tensor: that alone decides which
// optional steps run.
struct AttentionWeights {
  const float* norm = nullptr;
  WeightsId qkv, output;
  const float *q_norm = nullptr, *k_norm = nullptr;
};

struct FeedForwardWeights {
  const float* norm = nullptr;
  WeightsId gate_up, down;
};

// A tensor of the model by role; without spec where the file has none.
HostTensor TensorOf(const Model& model, TensorRole role, int layer = -1);

absl::StatusOr<AttentionWeights> PlaceAttention(Backend& backend, const Model& model, int layer);
absl::StatusOr<FeedForwardWeights> PlaceFeedForward(Backend& backend, const Model& model, int layer);

// Both take pass.normed, the norm of pass.hidden with this block's own weight, and leave there the norm
// with `next_norm`, the next block's, where that is not null.

// hidden += attention(normed); appends the pass's keys and values to `cache`.
absl::Status ForwardAttention(Backend& backend, const LayerSpec& layer, const AttentionWeights& w,
                              const KvView& cache, const float* next_norm, const PassBuffers& pass);

// hidden += down(silu(gate(normed)) * up(normed)).
absl::Status ForwardFeedForward(Backend& backend, const LayerSpec& layer,
                                const FeedForwardWeights& w, const float* next_norm,
                                const PassBuffers& pass);

}  // namespace millrace

#endif  // MILLRACE_WORKER_DECODER_BLOCK_H_
