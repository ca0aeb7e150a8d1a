// WidePrefill: products with several or many activation rows where the GPU has warpgroup tensor
// cores (kernels/wide_matmul_cuda.h): weights are read as they are, activations packed.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_WIDE_PREFILL_H_
#define MILLRACE_WORKER_BACKEND_CUDA_WIDE_PREFILL_H_

#include <functional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/wide_matmul_cuda.h"
#include "worker/backend/cuda/weight_pool.h"
#include "worker/stream/weight_stream.h"

namespace millrace {

// Activation rows, f16.
struct WideRows {
  const __half* data = nullptr;
  int64_t n = 0, cols = 0;
  int64_t stride = 0;   // halves between rows that are not packed
  bool packed = false;  // as PackedRows
};

// Belongs to its backend's thread.
class WidePrefill {
 public:
  // Makes a group's weights readable on a stream from here on, until what is returned dies.
  using Bring = std::function<absl::StatusOr<WeightLease>(int group, cuda::StreamView stream)>;

  // `room`: where rows are packed, 16-byte aligned; what does not fit at once is multiplied some
  // rows at a time. `groups` outlives this.
  WidePrefill(__half* room, Bytes size, const std::vector<PlacedGroup>* groups, Bring bring)
      : room_(room), size_(size), groups_(groups), bring_(std::move(bring)) {}

  // out[n, group.rows] f32 (+)= x[n, group.cols] * W^T + biases.
  absl::Status Multiply(int index, const WideRows& x, bool accumulate, float* out, int64_t ldo,
                        cuda::StreamView stream);

  // Whether GatedMultiply takes the group and rows like these.
  bool TakesGated(int index, const WideRows& x) const;
  // out = silu(x gate^T) * (x up^T), packed, of a group of gate and up.
  absl::Status GatedMultiply(int index, const WideRows& x, const cuda::PackedRows& out,
                             cuda::StreamView stream);
  // Those of at most kMostNarrowRows rows; the second is not packed: rows ldo halves apart.
  bool TakesNarrowGated(int index) const;
  absl::Status NarrowGatedMultiply(int index, const WideRows& x, const cuda::PackedRows& out,
                                   cuda::StreamView stream);
  absl::Status NarrowGatedMultiply(int index, const WideRows& x, __half* out, int64_t ldo,
                                   cuda::StreamView stream);

 private:
  // Most rows that `room_` holds packed.
  int64_t RowsAtOnce(int64_t cols) const;
  absl::StatusOr<cuda::PackedRows> Pack(const WideRows& x, cuda::StreamView stream);

  __half* room_;
  Bytes size_;
  const std::vector<PlacedGroup>* groups_;
  Bring bring_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_WIDE_PREFILL_H_
