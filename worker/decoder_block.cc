#include "worker/decoder_block.h"

#include <cmath>

#include "proto/status_macros.h"

namespace millrace {
namespace {

absl::StatusOr<WeightView> Weights(Backend& backend, const Model& model, TensorRole role,
                                   int layer) {
  const int index = model.spec().FindTensor(role, layer);
  MILLRACE_CHECK(index >= 0);  // Model::Open has checked that required tensors are there
  return backend.PlaceWeights(model.spec().tensors[index], model.TensorBytes(index));
}

// Null when the file has no such tensor.
absl::StatusOr<const float*> Vector(Backend& backend, const Model& model, TensorRole role,
                                    int layer) {
  const int index = model.spec().FindTensor(role, layer);
  if (index < 0) return nullptr;
  return backend.PlaceVector(model.spec().tensors[index], model.TensorBytes(index));
}

}  // namespace

absl::StatusOr<AttentionWeights> PlaceAttention(Backend& backend, const Model& model, int layer) {
  AttentionWeights w;
  using R = TensorRole;
  MILLRACE_ASSIGN_OR_RETURN(w.norm, Vector(backend, model, R::kAttnNorm, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.q, Weights(backend, model, R::kAttnQ, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.k, Weights(backend, model, R::kAttnK, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.v, Weights(backend, model, R::kAttnV, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.output, Weights(backend, model, R::kAttnOutput, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.q_bias, Vector(backend, model, R::kAttnQBias, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.k_bias, Vector(backend, model, R::kAttnKBias, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.v_bias, Vector(backend, model, R::kAttnVBias, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.output_bias, Vector(backend, model, R::kAttnOutputBias, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.q_norm, Vector(backend, model, R::kAttnQNorm, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.k_norm, Vector(backend, model, R::kAttnKNorm, layer));
  return w;
}

absl::StatusOr<FeedForwardWeights> PlaceFeedForward(Backend& backend, const Model& model,
                                                    int layer) {
  FeedForwardWeights w;
  using R = TensorRole;
  MILLRACE_ASSIGN_OR_RETURN(w.norm, Vector(backend, model, R::kFfnNorm, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.gate, Weights(backend, model, R::kFfnGate, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.up, Weights(backend, model, R::kFfnUp, layer));
  MILLRACE_ASSIGN_OR_RETURN(w.down, Weights(backend, model, R::kFfnDown, layer));
  return w;
}

absl::Status ForwardAttention(Backend& backend, const ModelSpec& model, const LayerSpec& layer,
                              const AttentionWeights& w, const KvView& cache,
                              const PassBuffers& pass) {
  const int64_t n = pass.hidden.rows;
  const int64_t q_cols = static_cast<int64_t>(layer.heads) * layer.head_dim;
  const int64_t kv_cols = static_cast<int64_t>(layer.kv_heads) * layer.head_dim;
  const FloatView q(pass.q, n, q_cols), k(pass.k, n, kv_cols), v(pass.v, n, kv_cols);
  const FloatView mixed(pass.mixed, n, q_cols);
  const float scale = 1.0f / std::sqrt(static_cast<float>(layer.head_dim));

  MILLRACE_RETURN_IF_ERROR(backend.RmsNorm(pass.hidden, w.norm, model.norm_epsilon, pass.normed));
  const MatmulTarget qkv[] = {
      {w.q, w.q_bias, q, false}, {w.k, w.k_bias, k, false}, {w.v, w.v_bias, v, false}};
  MILLRACE_RETURN_IF_ERROR(backend.Matmul(pass.normed, qkv));
  if (w.q_norm) {
    MILLRACE_RETURN_IF_ERROR(backend.HeadRmsNorm(q, layer.head_dim, w.q_norm, model.norm_epsilon));
  }
  if (w.k_norm) {
    MILLRACE_RETURN_IF_ERROR(backend.HeadRmsNorm(k, layer.head_dim, w.k_norm, model.norm_epsilon));
  }
  const RopeSpec& rope = model.rope;
  MILLRACE_RETURN_IF_ERROR(backend.Rope(q, layer.head_dim, rope.dims, rope.style, pass.rope));
  MILLRACE_RETURN_IF_ERROR(backend.Rope(k, layer.head_dim, rope.dims, rope.style, pass.rope));
  MILLRACE_RETURN_IF_ERROR(backend.KvAppend(k, v, pass.segments, cache));
  MILLRACE_RETURN_IF_ERROR(
      backend.Attention(q, layer.heads, cache, pass.segments, scale, mixed));
  const MatmulTarget output = {w.output, w.output_bias, pass.hidden, true};
  return backend.Matmul(mixed, {&output, 1});
}

absl::Status ForwardFeedForward(Backend& backend, const ModelSpec& model, const LayerSpec& layer,
                                const FeedForwardWeights& w, const PassBuffers& pass) {
  const FloatView gate(pass.gate, pass.hidden.rows, layer.d_ff);
  const FloatView up(pass.up, pass.hidden.rows, layer.d_ff);
  MILLRACE_RETURN_IF_ERROR(backend.RmsNorm(pass.hidden, w.norm, model.norm_epsilon, pass.normed));
  const MatmulTarget both[] = {{w.gate, nullptr, gate, false}, {w.up, nullptr, up, false}};
  MILLRACE_RETURN_IF_ERROR(backend.Matmul(pass.normed, both));
  MILLRACE_RETURN_IF_ERROR(backend.SwiGlu(gate, up));
  const MatmulTarget down = {w.down, nullptr, pass.hidden, true};
  return backend.Matmul(gate, {&down, 1});
}

}  // namespace millrace
