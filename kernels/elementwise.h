// Embedding lookup and SwiGLU.
#ifndef MILLRACE_KERNELS_ELEMENTWISE_H_
#define MILLRACE_KERNELS_ELEMENTWISE_H_

#include "absl/types/span.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"
#include "proto/ids.h"

namespace millrace {

// out[r] = dequantised row tokens[r] of table [vocab, d]; tokens are in range (CHECKed).
void Embed(const CpuContext& ctx, const WeightView& table, absl::Span<const TokenId> tokens,
           FloatView out);

// gate[r, i] = gate[r, i] / (1 + exp(-gate[r, i])) * up[r, i], in place. [n, d_ff] f32.
void SwiGlu(const CpuContext& ctx, FloatView gate, FloatView up);
void SwiGluReference(FloatView gate, FloatView up);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ELEMENTWISE_H_
