// Every transient buffer of a GPU stage, laid out once: the planner's numbers and the CUDA backend's
// allocation come from here. Pure: no CUDA.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_GPU_MEMORY_H_
#define MILLRACE_WORKER_BACKEND_CUDA_GPU_MEMORY_H_

#include <cstddef>

#include "proto/activation_needs.h"
#include "proto/model_spec.h"

namespace millrace {

// Passes of up to this many tokens take the decode kernels; larger ones multiply by other means
// (prefill_matmul.h, wide_prefill.h).
inline constexpr int kGpuSmallBatchTokens = 64;

// Rows of logits held at a time on a GPU.
inline constexpr int kMaxGpuHeadRows = 64;

// Offsets in bytes from the start of the arena, 256-byte aligned; n = max_pass_tokens. An attention
// half and a feed-forward half never run at once: qkv, q, mixed share their bytes with gate_up, act.
struct GpuActivationLayout {
  size_t hidden = 0;   // [n, d_model] f32: the residual stream
  size_t normed = 0;   // [n, d_model] f16, dense or packed (kernels/packed_rows_cuda.h)
  size_t norms = 0;    // two deferred norms (kernels/deferred_norm_cuda.h)
  size_t rope = 0;     // [n, dims / 2, 2] f32
  size_t qkv = 0;      // [n, (heads + 2 kv_heads) * head_dim] f32
  size_t q = 0;        // [n, heads * head_dim] f16
  size_t mixed = 0;    // [n, heads * head_dim] f16: attention's output
  size_t gate_up = 0;  // [n, 2 d_ff] f32
  size_t act = 0;      // [n, d_ff] f16, as normed
  // Where large passes dequantise: two buffers, each for the largest fused matrix as f16 or 256 MiB
  // of it (none where n <= kGpuSmallBatchTokens), and the matrix library's workspace. The head is
  // not among the matrices: its at most kMaxGpuHeadRows rows never dequantise.
  size_t dequantized[2] = {0, 0};
  size_t dequantized_bytes = 0;  // of each
  size_t cublas = 0, cublas_bytes = 0;
  // Where they do not: room for rows that come dense and have to be packed, all n of the widest or
  // 128 MiB of them; none where n < kLeastNarrowRows (kernels/narrow_choice.h).
  size_t packed = 0, packed_bytes = 0;
  size_t attention = 0, attention_bytes = 0;  // workspace of split attention
  size_t meta = 0, meta_bytes = 0;            // tokens, positions, segments of a pass
  size_t body_bytes = 0;                      // without the last stage's buffers
  // Last stage only.
  size_t logit_rows = 0;  // [kMaxGpuHeadRows, d_model] f16
  size_t logits = 0;      // [kMaxGpuHeadRows, vocab] f32
  size_t sampling = 0, sampling_bytes = 0;
  size_t total_bytes = 0;
};

// How a GPU multiplies weights with the rows of a large pass: as f16 by the matrix library, or as
// they are (kernels/wide_matmul_cuda.h).
enum class LargeProducts { kDequantized, kDirect };

// `max_pass_tokens`, `slots`, `context` >= 1, as in the plan.
GpuActivationLayout LayOutGpuActivations(const ModelSpec& model, int max_pass_tokens, int slots,
                                         int context, bool last_stage, LargeProducts products);

// Upper bounds for the planner: the same layout's sizes.
ActivationNeeds GpuActivationNeeds(const ModelSpec& model, int max_pass_tokens, int slots,
                                   int context, LargeProducts products);

// Bytes that a tensor takes on a GPU; `lookup`: as the embedding table, which stays as in the file.
Bytes CudaPlacedBytes(const TensorSpec& spec, bool lookup);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_GPU_MEMORY_H_
