// Rope: rotary position embedding in place (Su et al., RoFormer, arXiv:2104.09864).
// For pair i of a head at position p: angle = p / linear_factor * base^(-2i/dims) / factor[i];
// (a, b) -> (a cos - b sin, a sin + b cos). Dimensions past `dims` stay as they are.
#ifndef MILLRACE_KERNELS_ROPE_H_
#define MILLRACE_KERNELS_ROPE_H_

#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"
#include "proto/model_spec.h"

namespace millrace {

// Angular step per position of each pair: [dims / 2]. Made once per model.
std::vector<double> RopeFrequencies(const RopeSpec& spec);

size_t RopeScratchBytes(int64_t n, int dims);

// x: [n, heads * head_dim] f32; positions: [n].
void Rope(const CpuContext& ctx, FloatView x, int head_dim, absl::Span<const int> positions,
          RopeStyle style, absl::Span<const double> frequencies);
void RopeReference(FloatView x, int head_dim, absl::Span<const int> positions, RopeStyle style,
                   absl::Span<const double> frequencies);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ROPE_H_
