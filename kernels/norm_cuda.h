// RmsNorm on a CUDA device: the formula of kernels/norm.h.
#ifndef MILLRACE_KERNELS_NORM_CUDA_H_
#define MILLRACE_KERNELS_NORM_CUDA_H_

#include <cuda_fp16.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "kernels/deferred_norm_cuda.h"
#include "kernels/packed_rows_cuda.h"

namespace millrace::cuda {

// x, out: [n, d] f32 rows d apart (may be the same); weight: [d] f32; all on the stream's device,
// which is current. Sum of squares in FP32, one thread block per row. Asynchronous: the status is
// the launch's.
absl::Status RmsNorm(const float* x, int64_t n, int64_t d, const float* weight, float epsilon,
                     float* out, StreamView stream);

// The same to f16, rounded to nearest even and saturated: out[r] is row_index[r] of x, or row r
// where row_index is null. x: rows of d f32, ldx apart; row_index: [n] on the device, may be
// written by earlier work on the stream, in range; out: [n, d] dense. The weights are written by no
// kernel that may still run. Rows in registers up to d = 16384 where x, weight and ldx are 16-byte
// aligned.
absl::Status RmsNormHalf(const float* x, int64_t ldx, const int32_t* row_index, int64_t n,
                         int64_t d, const float* weight, float epsilon, __half* out,
                         StreamView stream);

// The same with the result packed, of rows that lie as they are numbered. x and weight are 16-byte
// aligned, ldx is a multiple of 4; RmsNormPacks(out.cols).
bool RmsNormPacks(int64_t d);
absl::Status RmsNormPacked(const float* x, int64_t ldx, const float* weight, float epsilon,
                           const PackedRows& out, StreamView stream);

// The first of a chain of deferred norms: `out` [n, d] as halves, `after`'s sums (one part) and
// prescale written. `parts`, `d` and `epsilon` of `after` are set by the caller: 1, d, epsilon.
// n <= kDeferredNormRows.
absl::Status RmsNormDeferred(const float* x, int64_t ldx, int64_t n, const float* weight,
                             const DeferredNorm& after, __half* out, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_NORM_CUDA_H_
