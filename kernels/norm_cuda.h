// RmsNorm on a CUDA device: the formula of kernels/norm.h.
#ifndef MILLRACE_KERNELS_NORM_CUDA_H_
#define MILLRACE_KERNELS_NORM_CUDA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

// x, out: [n, d] f32 rows d apart (may be the same); weight: [d] f32; all on the stream's device,
// which is current. Sum of squares in FP32, one thread block per row. Asynchronous: the status is
// the launch's.
absl::Status RmsNorm(const float* x, int64_t n, int64_t d, const float* weight, float epsilon,
                     float* out, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NORM_CUDA_H_
