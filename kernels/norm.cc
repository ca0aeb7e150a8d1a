#include "kernels/norm.h"

#include <cmath>

#include "kernels/ops_dispatch.h"
#include "proto/status_macros.h"

namespace millrace {

void RmsNorm(const CpuContext& ctx, FloatView x, const float* weight, float epsilon,
             FloatView out) {
  MILLRACE_CHECK(x.rows == out.rows && x.cols == out.cols);
  const OpsKernels& kernels = OpsKernelsFor(ctx);
  ctx.pool->ParallelFor(x.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      kernels.rms_norm_row(x.row(r), weight, x.cols, epsilon, out.row(r));
    }
  });
}

void HeadRmsNorm(const CpuContext& ctx, FloatView x, int head_dim, const float* weight,
                 float epsilon) {
  MILLRACE_CHECK(x.cols % head_dim == 0);
  const OpsKernels& kernels = OpsKernelsFor(ctx);
  ctx.pool->ParallelFor(x.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t h = 0; h < x.cols; h += head_dim) {
        float* head = x.row(r) + h;
        kernels.rms_norm_row(head, weight, head_dim, epsilon, head);
      }
    }
  });
}

void RmsNormReference(FloatView x, const float* weight, float epsilon, FloatView out) {
  for (int64_t r = 0; r < x.rows; ++r) {
    double sum = 0;
    for (int64_t i = 0; i < x.cols; ++i) sum += static_cast<double>(x.row(r)[i]) * x.row(r)[i];
    const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.cols) + epsilon);
    for (int64_t i = 0; i < x.cols; ++i) {
      out.row(r)[i] = static_cast<float>(x.row(r)[i] * scale * weight[i]);
    }
  }
}

}  // namespace millrace
