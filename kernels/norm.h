// RmsNorm: out[r, i] = x[r, i] / sqrt(mean_i(x[r]^2) + epsilon) * weight[i].
#ifndef MILLRACE_KERNELS_NORM_H_
#define MILLRACE_KERNELS_NORM_H_

#include "kernels/cpu_context.h"
#include "kernels/views.h"

namespace millrace {

// x, out: [n, d] f32 (may be the same); weight: [d] f32. The sum of squares is accumulated in FP32
// over lanes (double in the reference).
void RmsNorm(const CpuContext& ctx, FloatView x, const float* weight, float epsilon, FloatView out);
void RmsNormReference(FloatView x, const float* weight, float epsilon, FloatView out);

// The same over each head of x [n, heads * head_dim] in place, weight [head_dim] (qwen3's q/k
// norm).
void HeadRmsNorm(const CpuContext& ctx, FloatView x, int head_dim, const float* weight,
                 float epsilon);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_NORM_H_
