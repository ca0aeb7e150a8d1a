#include "worker/decoder_block.h"

#include "proto/status_macros.h"

namespace millrace {
namespace {

// The first `cols` columns of a buffer that is as wide as the widest layer, packed.
FloatView Narrow(FloatView v, int64_t cols) { return FloatView(v.data, v.rows, cols); }
Activations Narrow(const Activations& a, int64_t cols, int64_t stride) {
  return {a.data, a.rows, cols, stride};
}

FloatView GateUpOf(const FeedForwardWeights& w, const PassBuffers& pass) {
  return Narrow(pass.gate_up, 2 * w.units);
}
Activations ActOf(const FeedForwardWeights& w, const PassBuffers& pass) {
  return Narrow(pass.act, w.units,
                pass.act.data == pass.gate_up.data ? GateUpOf(w, pass).stride : w.units);
}

absl::StatusOr<WeightsId> PlaceGroup(Backend& backend, Home home,
                                     absl::Span<const HostTensor> matrices,
                                     absl::Span<const HostTensor> biases) {
  return home == Home::kDevice ? backend.PlaceMatrices(matrices, biases)
                               : backend.StreamMatrices(matrices, biases);
}

}  // namespace

HostTensor TensorOf(const Model& model, TensorRole role, int layer) {
  const int index = model.spec().FindTensor(role, layer);
  if (index < 0) return {};
  return {&model.spec().tensors[index], model.TensorBytes(index)};
}

absl::StatusOr<AttentionWeights> PlaceAttention(Backend& backend, const Model& model, int layer,
                                                Home home) {
  using R = TensorRole;
  auto tensor = [&](R role) { return TensorOf(model, role, layer); };
  AttentionWeights w;
  MILLRACE_ASSIGN_OR_RETURN(w.norm, backend.PlaceVector(tensor(R::kAttnNorm)));
  MILLRACE_ASSIGN_OR_RETURN(
      w.qkv, PlaceGroup(backend, home, {tensor(R::kAttnQ), tensor(R::kAttnK), tensor(R::kAttnV)},
                        {tensor(R::kAttnQBias), tensor(R::kAttnKBias), tensor(R::kAttnVBias)}));
  MILLRACE_ASSIGN_OR_RETURN(w.output, PlaceGroup(backend, home, {tensor(R::kAttnOutput)},
                                                 {tensor(R::kAttnOutputBias)}));
  MILLRACE_ASSIGN_OR_RETURN(w.q_norm, backend.PlaceVector(tensor(R::kAttnQNorm)));
  MILLRACE_ASSIGN_OR_RETURN(w.k_norm, backend.PlaceVector(tensor(R::kAttnKNorm)));
  return w;
}

absl::StatusOr<FeedForwardWeights> PlaceFeedForward(Backend& backend, const Model& model, int layer,
                                                    Home home) {
  using R = TensorRole;
  auto tensor = [&](R role) { return TensorOf(model, role, layer); };
  FeedForwardWeights w;
  MILLRACE_ASSIGN_OR_RETURN(w.norm, backend.PlaceVector(tensor(R::kFfnNorm)));
  MILLRACE_ASSIGN_OR_RETURN(
      w.gate_up, PlaceGroup(backend, home, {tensor(R::kFfnGate), tensor(R::kFfnUp)}, {}));
  MILLRACE_ASSIGN_OR_RETURN(w.down, PlaceGroup(backend, home, {tensor(R::kFfnDown)}, {}));
  w.units = model.spec().layers[static_cast<size_t>(layer)].d_ff;
  return w;
}

absl::StatusOr<FeedForwardWeights> PlaceUnits(Backend& backend, const Model& model, int layer,
                                              Home home, UnitRange units, const float* norm,
                                              TensorSlices& slices) {
  using R = TensorRole;
  auto rows = [&](R role) {
    return slices.Rows(TensorOf(model, role, layer), units.begin, units.end);
  };
  const HostTensor down =
      slices.Columns(TensorOf(model, R::kFfnDown, layer), units.begin, units.end);
  FeedForwardWeights w;
  w.norm = norm;
  w.units = units.end - units.begin;
  MILLRACE_ASSIGN_OR_RETURN(w.gate_up,
                            PlaceGroup(backend, home, {rows(R::kFfnGate), rows(R::kFfnUp)}, {}));
  MILLRACE_ASSIGN_OR_RETURN(w.down, PlaceGroup(backend, home, {down}, {}));
  return w;
}

absl::Status ForwardAttention(Backend& backend, const LayerSpec& layer, const AttentionWeights& w,
                              const KvView& cache, const float* next_norm,
                              const PassBuffers& pass) {
  const int64_t q_cols = int64_t{layer.heads} * layer.head_dim;
  const int64_t kv_cols = int64_t{layer.kv_heads} * layer.head_dim;
  const FloatView qkv = Narrow(pass.qkv, q_cols + 2 * kv_cols);
  // Where q is a part of qkv it keeps qkv's rows.
  const Activations q = Narrow(pass.q, q_cols, pass.q.data == pass.qkv.data ? qkv.stride : q_cols);
  const Activations mixed = Narrow(pass.mixed, q_cols, q_cols);

  MILLRACE_RETURN_IF_ERROR(backend.Matmul(pass.normed, w.qkv, qkv));
  MILLRACE_RETURN_IF_ERROR(
      backend.Attention(qkv, layer, w.q_norm, w.k_norm, cache, q, mixed));
  return backend.AddMatmul(mixed, w.output, pass.hidden, next_norm, pass.normed);
}

absl::Status ForwardFeedForward(Backend& backend, const FeedForwardWeights& w,
                                const float* next_norm, const PassBuffers& pass) {
  const Activations act = ActOf(w, pass);
  MILLRACE_RETURN_IF_ERROR(backend.GatedMatmul(pass.normed, w.gate_up, GateUpOf(w, pass), act));
  return backend.AddMatmul(act, w.down, pass.hidden, next_norm, pass.normed);
}

absl::Status FeedForwardOnly(Backend& backend, const FeedForwardWeights& w, const PassBuffers& pass,
                             FloatView out) {
  const Activations act = ActOf(w, pass);
  MILLRACE_RETURN_IF_ERROR(backend.GatedMatmul(pass.normed, w.gate_up, GateUpOf(w, pass), act));
  return backend.Matmul(act, w.down, out);
}

}  // namespace millrace
