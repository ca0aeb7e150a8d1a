// Rotary embedding and the KV cache's new cells on a CUDA device: the formulas of kernels/rope.h,
// kernels/norm.h and KvAppend.
#ifndef MILLRACE_KERNELS_ROPE_CUDA_H_
#define MILLRACE_KERNELS_ROPE_CUDA_H_

#include <cuda_fp16.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/cuda/stream.h"
#include "kernels/pass_rows.h"
#include "proto/model_spec.h"

namespace millrace::cuda {

// All pointers are of the stream's device, which is current. Asynchronous: the status is the
// launch's.

// table [rows.n, pairs, 2] f32: cosine and sine of each row's position times frequencies [pairs]
// f64, the angle in double. Rows with a negative position get any value.
absl::Status RopeTable(const PassRows& rows, const double* frequencies, int pairs, float* table,
                       StreamView stream);

struct RopeAppendArgs {
  // [rows.n, stride] f32: heads * head_dim columns of queries, then kv_heads * head_dim of keys,
  // then as many of values.
  const float* qkv = nullptr;
  int64_t stride = 0;
  int heads = 0;
  // RMS norm over each head before the rotation: [head_dim] f32, or null for none.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float epsilon = 0;
  // [rows.n, dims / 2, 2] f32 as RopeTable makes it; dims even, <= head_dim. The dimensions after
  // `dims` pass through.
  const float* table = nullptr;
  int dims = 0;
  RopeStyle style = RopeStyle::kInterleaved;
};

// Writes the queries to q [rows.n, heads * head_dim] as f16 (beyond its range: its largest value)
// and the keys and values to the cache at (slot, kv head, position) of each row, converted as
// KvAppend converts them. cache: of any of its types, head_dim <= 256 and a multiple of 8. No other
// byte of either is written.
absl::Status RopeAppend(const RopeAppendArgs& args, const PassRows& rows, __half* q,
                        const KvView& cache, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_ROPE_CUDA_H_
