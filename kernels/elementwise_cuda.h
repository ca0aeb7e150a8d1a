// Embedding lookup, SwiGLU, bias and conversion to FP16 on a CUDA device.
//
// All pointers are memory of the stream's device, which is current. Everything is asynchronous: the
// status is the launch's. At most 65535 rows (CHECKed). FP16 results are rounded to nearest even
// and saturated to +-65504.
#ifndef MILLRACE_KERNELS_ELEMENTWISE_CUDA_H_
#define MILLRACE_KERNELS_ELEMENTWISE_CUDA_H_

#include <cuda_fp16.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "proto/dtype_id.h"

namespace millrace::cuda {

// out[r, i] = g / (1 + exp(-g)) * u with g = gate_up[r, i] and u = gate_up[r, d_ff + i].
// gate_up: [n, 2 d_ff] f32, rows `stride` apart; out: [n, d_ff] f16, dense.
absl::Status SwiGluHalf(const float* gate_up, int64_t stride, int64_t n, int64_t d_ff, __half* out,
                        StreamView stream);
// The same of f16 products, infinite ones taken as the largest f16. d_ff, stride: multiples of 8;
// gate_up, out: 16-byte aligned.
absl::Status SwiGluOfHalves(const __half* gate_up, int64_t stride, int64_t n, int64_t d_ff,
                            __half* out, StreamView stream);


// out[r] = row tokens[r] of the table, as DequantizeRow gives it, bit for bit. table: [vocab, d] of
// the file's blocks, any alignment, d a multiple of the block (CHECKed); tokens: [n], may be
// written by earlier work on the stream; a token outside [0, vocab) gives a row of zeros.
// out: [n, d] f32, dense.
absl::Status EmbedRows(const void* table, DType dtype, int64_t vocab, int64_t d,
                       const int32_t* tokens, int64_t n, float* out, StreamView stream);

// y[r, i] += bias[i]. y: [n, cols] f32, rows `stride` apart; bias: [cols] f32.
absl::Status AddBias(float* y, int64_t stride, int64_t n, int64_t cols, const float* bias,
                     StreamView stream);

// x: [n, d] f32, rows `stride` apart; out: [n, d] f16, dense.
absl::Status FloatToHalf(const float* x, int64_t stride, int64_t n, int64_t d, __half* out,
                         StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_ELEMENTWISE_CUDA_H_
