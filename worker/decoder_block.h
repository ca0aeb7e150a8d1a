// DecoderBlock: the forward pass of half a layer as a list of ops.
#ifndef MILLRACE_WORKER_DECODER_BLOCK_H_
#define MILLRACE_WORKER_DECODER_BLOCK_H_

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/model_spec.h"
#include "proto/placement_plan.h"
#include "worker/backend/backend.h"
#include "worker/kv_cache.h"
#include "worker/model/model.h"
#include "worker/tensor_slices.h"

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
  int64_t units = 0;  // rows of gate and of up, columns of down
};

// Units [begin, end) of a feed-forward block.
struct UnitRange {
  int64_t begin = 0, end = 0;
};

// A tensor of the model by role; without spec where the file has none.
HostTensor TensorOf(const Model& model, TensorRole role, int layer = -1);

// Matrices that are not homed on the device stay in host memory and are streamed; vectors are placed
// in any case.
absl::StatusOr<AttentionWeights> PlaceAttention(Backend& backend, const Model& model, int layer,
                                                Home home);
absl::StatusOr<FeedForwardWeights> PlaceFeedForward(Backend& backend, const Model& model, int layer,
                                                    Home home);

// Some units of the layer, with `norm`, which is placed already. `slices`, for the backend's kind of
// device, outlives the backend.
absl::StatusOr<FeedForwardWeights> PlaceUnits(Backend& backend, const Model& model, int layer,
                                              Home home, UnitRange units, const float* norm,
                                              TensorSlices& slices);

// Both take pass.normed, the norm of pass.hidden with this block's own weight, and leave there the norm
// with `next_norm`, the next block's, where that is not null.

// hidden += attention(normed); appends the pass's keys and values to `cache`.
absl::Status ForwardAttention(Backend& backend, const LayerSpec& layer, const AttentionWeights& w,
                              const KvView& cache, const float* next_norm, const PassBuffers& pass);

// hidden += down(silu(gate(normed)) * up(normed)), of some units their part of the sum.
absl::Status ForwardFeedForward(Backend& backend, const FeedForwardWeights& w,
                                const float* next_norm, const PassBuffers& pass);
// The same that is added, to `out` [n, d_model].
absl::Status FeedForwardOnly(Backend& backend, const FeedForwardWeights& w, const PassBuffers& pass,
                             FloatView out);

}  // namespace millrace

#endif  // MILLRACE_WORKER_DECODER_BLOCK_H_
