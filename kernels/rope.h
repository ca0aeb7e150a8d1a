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

// Cosine and sine of each position and pair, angles in double: table [n, dims / 2, 2] f32. Made once
// per pass and used by every layer.
void RopeTable(const CpuContext& ctx, absl::Span<const int> positions,
               absl::Span<const double> frequencies, float* table);

// x: [n, heads * head_dim] f32, rotated in place; table as RopeTable made it for x's rows.
void Rope(const CpuContext& ctx, FloatView x, int head_dim, int dims, RopeStyle style,
          const float* table);

// Straight from the formula, in double.
void RopeReference(FloatView x, int head_dim, absl::Span<const int> positions, RopeStyle style,
                   absl::Span<const double> frequencies);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_ROPE_H_
