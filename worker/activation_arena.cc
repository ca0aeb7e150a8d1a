#include "worker/activation_arena.h"

#include <algorithm>

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "worker/backend/cuda/gpu_memory.h"

namespace millrace {
namespace {

class Bump {
 public:
  explicit Bump(size_t at = 0) : at_(at) {}
  size_t Take(size_t bytes) {
    const size_t begin = at_;
    at_ = (at_ + bytes + 63) / 64 * 64;
    return begin;
  }
  size_t end() const { return at_; }

 private:
  size_t at_;
};

}  // namespace

ActivationLayout LayOutActivations(const ModelSpec& model, const ActivationShape& shape,
                                   bool last_stage) {
  int64_t q = 0, kv = 0, ff = 0, head_dim = 0;
  for (const LayerSpec& l : model.layers) {
    q = std::max<int64_t>(q, static_cast<int64_t>(l.heads) * l.head_dim);
    kv = std::max<int64_t>(kv, static_cast<int64_t>(l.kv_heads) * l.head_dim);
    ff = std::max<int64_t>(ff, l.d_ff);
    head_dim = std::max<int64_t>(head_dim, l.head_dim);
  }
  const size_t n = static_cast<size_t>(shape.max_pass_tokens);
  auto floats = [&](int64_t cols) { return n * static_cast<size_t>(cols) * sizeof(float); };

  ActivationLayout out;
  Bump bump;
  out.hidden = bump.Take(floats(model.d_model));
  out.normed = bump.Take(floats(model.d_model));
  out.rope = bump.Take(floats(model.rope.dims));
  // An attention half and a feed-forward half never run at once: their buffers share bytes.
  Bump attention(bump.end()), feed_forward(bump.end());
  out.q_cols = q;
  out.kv_cols = kv;
  out.ff_cols = ff;
  out.qkv = attention.Take(floats(q + 2 * kv));
  out.mixed = attention.Take(floats(q));
  out.gate_up = feed_forward.Take(floats(2 * ff));
  bump = Bump(std::max(attention.end(), feed_forward.end()));
  const int64_t widest = std::max({static_cast<int64_t>(model.d_model), q, ff});
  out.scratch_bytes =
      std::max(MatmulScratchBytes(std::max(shape.max_pass_tokens, kMaxLogitRows), widest, shape.threads),
               AttentionScratchBytes(static_cast<int>(head_dim), shape.threads));
  out.scratch = bump.Take(out.scratch_bytes);
  out.body_bytes = bump.end();
  if (last_stage) {
    out.logit_rows = bump.Take(kMaxLogitRows * static_cast<size_t>(model.d_model) * sizeof(float));
    out.logits = bump.Take(kMaxLogitRows * static_cast<size_t>(model.vocab) * sizeof(float));
  }
  out.total_bytes = bump.end();
  return out;
}

ActivationNeeds ActivationNeedsOf(const ModelSpec& model, const ActivationShape& shape,
                                  DeviceKind kind) {
  if (kind == DeviceKind::kGpu) {
    return GpuActivationNeeds(
        model, shape.max_pass_tokens, shape.slots, shape.context,
        shape.direct_products ? LargeProducts::kDirect : LargeProducts::kDequantized);
  }
  const ActivationLayout last = LayOutActivations(model, shape, true);
  ActivationNeeds needs;
  needs.body = Bytes(static_cast<int64_t>(last.body_bytes));
  needs.last_extra = Bytes(static_cast<int64_t>(last.total_bytes - last.body_bytes));
  return needs;
}

}  // namespace millrace
