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

// hidden += attention(norm(hidden)); appends the pass's keys and values to `cache`.
absl::Status ForwardAttention(Backend& backend, const LayerSpec& layer, const AttentionWeights& w,
                              const KvView& cache, const PassBuffers& pass);

// hidden += down(silu(gate(norm(hidden))) * up(norm(hidden))).
absl::Status ForwardFeedForward(Backend& backend, const LayerSpec& layer,
                                const FeedForwardWeights& w, const PassBuffers& pass);

}  // namespace millrace

#endif  // MILLRACE_WORKER_DECODER_BLOCK_H_
