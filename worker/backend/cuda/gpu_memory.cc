#include "worker/backend/cuda/gpu_memory.h"

#include <algorithm>
#include <cstdint>

#include "kernels/deferred_norm_cuda.h"
#include "kernels/narrow_choice.h"
#include "proto/device_layout.h"
#include "worker/activation_arena.h"

namespace millrace {
namespace {

constexpr size_t kF16 = 2, kF32 = 4;  // bytes
constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kCublasWorkspace = 32 * kMiB;
constexpr size_t kAttentionWorkspace = 64 * kMiB;
constexpr size_t kMostDequantized = 256 * kMiB;
constexpr size_t kMostPacked = 128 * kMiB;
constexpr size_t kLeastMeta = kMiB;
// Token, position, slot, output row and copies for the host: generous. Per slot: its segment.
constexpr size_t kMetaPerToken = 32, kMetaPerSlot = 64;

// Rows may lie packed (kernels/packed_rows_cuda.h): eight at a time, 64 columns at a time.
size_t HalfRows(size_t n, size_t cols) { return (n + 7) / 8 * 8 * ((cols + 63) / 64 * 64) * kF16; }

class Bump {
 public:
  explicit Bump(size_t at) : at_(at) {}
  size_t Take(size_t bytes) {
    const size_t begin = at_;
    const auto align = static_cast<size_t>(kDeviceAlignment.count());
    at_ = (at_ + bytes + align - 1) / align * align;
    return begin;
  }
  size_t end() const { return at_; }

 private:
  size_t at_;
};

// The widest of any layer, in elements.
struct Widths {
  size_t q = 0, qkv = 0, ff = 0;
  size_t fused_matrix = 0;  // elements of the largest: qkv, output, gate and up, down
};

Widths WidthsOf(const ModelSpec& model) {
  Widths w;
  const auto d = static_cast<size_t>(model.d_model);
  for (const LayerSpec& l : model.layers) {
    const size_t q = static_cast<size_t>(l.heads) * l.head_dim;
    const size_t qkv = q + 2 * static_cast<size_t>(l.kv_heads) * l.head_dim;
    const auto ff = static_cast<size_t>(l.d_ff);
    w.q = std::max(w.q, q);
    w.qkv = std::max(w.qkv, qkv);
    w.ff = std::max(w.ff, ff);
    w.fused_matrix = std::max({w.fused_matrix, qkv * d, d * q, 2 * ff * d, d * ff});
  }
  return w;
}

}  // namespace

GpuActivationLayout LayOutGpuActivations(const ModelSpec& model, int max_pass_tokens, int slots,
                                         int context, bool last_stage, LargeProducts products) {
  const Widths widths = WidthsOf(model);
  const auto n = static_cast<size_t>(max_pass_tokens);
  const auto d = static_cast<size_t>(model.d_model);
  GpuActivationLayout out;
  Bump bump(0);
  out.hidden = bump.Take(n * d * kF32);
  out.normed = bump.Take(HalfRows(n, d));
  out.norms = bump.Take(2 * static_cast<size_t>(cuda::kDeferredNormBytes));
  out.rope = bump.Take(n * static_cast<size_t>(model.rope.dims) * kF32);
  Bump attention(bump.end()), feed_forward(bump.end());
  out.qkv = attention.Take(n * widths.qkv * kF32);
  out.q = attention.Take(n * widths.q * kF16);
  out.mixed = attention.Take(n * widths.q * kF16);
  out.gate_up = feed_forward.Take(n * 2 * widths.ff * kF32);
  out.act = feed_forward.Take(HalfRows(n, widths.ff));
  bump = Bump(std::max(attention.end(), feed_forward.end()));
  const bool large = max_pass_tokens > kGpuSmallBatchTokens;
  if (products == LargeProducts::kDequantized) {
    if (large) out.dequantized_bytes = std::min(widths.fused_matrix * kF16, kMostDequantized);
    out.cublas_bytes = kCublasWorkspace;
  } else if (max_pass_tokens >= cuda::kLeastNarrowRows) {
    out.packed_bytes = std::min(HalfRows(n, std::max({d, widths.q, widths.ff})), kMostPacked);
  }
  for (size_t& buffer : out.dequantized) buffer = bump.Take(out.dequantized_bytes);
  out.cublas = bump.Take(out.cublas_bytes);
  out.packed = bump.Take(out.packed_bytes);
  out.attention_bytes = kAttentionWorkspace;
  out.attention = bump.Take(out.attention_bytes);
  out.meta_bytes = std::max(
      kLeastMeta, n * kMetaPerToken + static_cast<size_t>(slots) * kMetaPerSlot);
  out.meta = bump.Take(out.meta_bytes);
  out.body_bytes = bump.end();
  if (last_stage) {
    out.logit_rows = bump.Take(kMaxGpuHeadRows * d * kF16);
    out.logits = bump.Take(kMaxGpuHeadRows * static_cast<size_t>(model.vocab) * kF32);
    // Results and, per row, candidates of each part of the vocabulary.
    out.sampling_bytes = kMiB + kMaxGpuHeadRows * static_cast<size_t>(model.vocab);
    out.sampling = bump.Take(out.sampling_bytes);
  }
  out.total_bytes = bump.end();
  return out;
}

ActivationNeeds GpuActivationNeeds(const ModelSpec& model, int max_pass_tokens, int slots,
                                   int context, LargeProducts products) {
  const GpuActivationLayout last =
      LayOutGpuActivations(model, max_pass_tokens, slots, context, true, products);
  ActivationNeeds needs;
  needs.body = Bytes(static_cast<int64_t>(last.body_bytes));
  needs.last_extra = Bytes(static_cast<int64_t>(last.total_bytes - last.body_bytes));
  return needs;
}

Bytes CudaPlacedBytes(const TensorSpec& spec, bool lookup) {
  if (spec.shape.size() != 2) return DeviceVectorBytes(spec.cols());
  return RoundUp(lookup ? spec.size : TiledBytes(spec.dtype, spec.rows(), spec.cols()),
                 kDeviceAlignment);
}

}  // namespace millrace
