// Causal grouped-query attention over a KV cache, and appending to the cache.
#ifndef MILLRACE_KERNELS_ATTENTION_H_
#define MILLRACE_KERNELS_ATTENTION_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"

namespace millrace {

// One layer's cache. K and V each lie as [slots, kv_heads, context, head_dim] in `dtype`
// (f32, f16, bf16, or q8_0 with head_dim a multiple of 32).
struct KvView {
  void* k = nullptr;
  void* v = nullptr;
  DType dtype = DType::kF16;
  int slots = 0;
  int context = 0;
  int kv_heads = 0;
  int head_dim = 0;
};

// A run of consecutive tokens of one sequence inside a pass: rows [first_row, first_row + rows) are
// positions [first_position, first_position + rows) of the sequence in `slot`.
struct AttentionSegment {
  int slot = 0;
  int first_position = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// Writes k, v [n, kv_heads * head_dim] of the segments' rows to their positions, converted to the
// cache's type (round to nearest even; q8_0: d = max|x| / 127 in f16 per 32 values).
void KvAppend(const CpuContext& ctx, FloatView k, FloatView v,
              absl::Span<const AttentionSegment> segments, const KvView& cache);

// Upper bound for any heads, segments and cache type with this head_dim on a pool of `threads`.
size_t AttentionScratchBytes(int head_dim, int threads);

// For each row r of a segment at position p, each head h (kv head h / (heads / kv_heads)):
//   out[r, h] = sum_j softmax_j(scale * q[r, h] . K[j]) V[j],  j = 0..p (the row itself included)
// q, out: [n, heads * head_dim] f32. FP32 softmax and accumulators; online over blocks of the
// cache, no n x n matrix. Where there are fewer pieces of work than threads the context is
// divided too, so the last bits of a result may depend on the number of threads. The cache already
// holds the segments' own keys (KvAppend first).
void Attention(const CpuContext& ctx, FloatView q, int heads, const KvView& cache,
               absl::Span<const AttentionSegment> segments, float scale, FloatView out);

// Scalar reference with double accumulators over the same cache contents.
void AttentionReference(FloatView q, int heads, const KvView& cache,
                        absl::Span<const AttentionSegment> segments, float scale, FloatView out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ATTENTION_H_
