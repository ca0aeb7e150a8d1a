// Matmul: y[n, rows] = x[n, cols] * W[rows, cols]^T (+ bias[rows]) (+ y), FP32 accumulation.
//
// W is read in place, in any DType, straight from the model file's blocks; some columns of a matrix
// (WeightView::row_stride) as well as all of them. For quantised types x is
// first quantised to int8 blocks as long as the weights' sub-blocks, each with an f32 scale of its
// own (16 values for Q6_K, Q3_K and Q2_K, 32 for the others), with the block sums that offsets and
// minima need; from five rows of x on, a processor with AMX tiles multiplies bf16 x with bf16 W
// instead. For F32/F16/BF16 weights x stays f32. A result depends on its rows of W and x alone, not
// on the other rows nor on the number of threads; which path computes it depends on n (see
// matmul_cpu.cc). Several targets may share one x (q, k and v; gate and up): it is quantised once.
#ifndef MILLRACE_KERNELS_MATMUL_H_
#define MILLRACE_KERNELS_MATMUL_H_

#include <cstddef>

#include "absl/types/span.h"
#include "kernels/cpu_context.h"
#include "kernels/views.h"

namespace millrace {

struct MatmulTarget {
  WeightView w;                 // [rows, cols]
  const float* bias = nullptr;  // [rows] f32 or null
  FloatView y;                  // [n, rows]
  bool accumulate = false;      // add to what y holds (the residual stream)
};

// Scratch for any Matmul of up to n rows of x and up to `cols` columns with `threads` threads.
size_t MatmulScratchBytes(int64_t n, int64_t cols, int threads);

// All targets have w.cols == x.cols, y.rows == x.rows, y.cols == w.rows (CHECKed).
// Few rows of x run matrix-vector kernels; more unpack panels of W once and reuse them for all
// rows.
void Matmul(const CpuContext& ctx, FloatView x, absl::Span<const MatmulTarget> targets);

// Scalar reference: W dequantised by DequantizeRow, x NOT quantised, double accumulators.
void MatmulReference(FloatView x, const MatmulTarget& target);

// Dequantises one row of `cols` values.
void DequantizeRow(DType dtype, const void* row, int64_t cols, float* out);

}  // namespace millrace

#endif  // MILLRACE_KERNELS_MATMUL_H_
