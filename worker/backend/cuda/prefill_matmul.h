// PrefillMatmul: products with many activation rows. The weights of a group become f16 in one of two
// buffers, on a stream of their own while the product before is running, then cuBLASLt multiplies.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_
#define MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_

#include <array>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/stream.h"
#include "worker/backend/cuda/weight_pool.h"

namespace millrace {

// Belongs to its backend's thread.
class PrefillMatmul {
 public:
  // `buffers`: of `capacity` values each; groups that are larger must not be multiplied here. `groups` outlives this and is in the order
  // in which passes use them.
  static absl::StatusOr<PrefillMatmul> Create(int device, cuda::GemmEngine engine,
                                              std::array<__half*, 2> buffers, size_t capacity,
                                              const std::vector<PlacedGroup>* groups);

  // out[n, group.rows] f32 (+)= x[n, group.cols] * W^T + biases. Group `index` + 1 is dequantised
  // meanwhile, if there is one and it fits.
  absl::Status Multiply(int index, const __half* x, int64_t n, int64_t ldx, bool accumulate,
                        float* out, int64_t ldo, cuda::StreamView stream);
  // The same rounded to f16, of a group without biases.
  absl::Status MultiplyToHalf(int index, const __half* x, int64_t n, int64_t ldx, __half* out,
                              int64_t ldo, cuda::StreamView stream);

 private:
  struct Buffer {
    __half* data = nullptr;
    int group = -1;     // whose weights are (being) put there
    cuda::Event ready;  // they are there
    cuda::Event free;   // the last product that read them is done
  };
  PrefillMatmul(cuda::GemmEngine engine, cuda::Stream side, const std::vector<PlacedGroup>* groups)
      : engine_(std::move(engine)), side_(std::move(side)), groups_(groups) {}
  // Queues the group's weights into the buffer that `index` uses.
  absl::Status Prepare(int index);
  // Calls `product` (weights, rows, multiplier, first row) for each run of rows with one multiplier,
  // between waiting for the weights and releasing them.
  absl::Status ForRuns(
      int index, cuda::StreamView stream,
      absl::FunctionRef<absl::Status(const __half*, int64_t, float, int64_t)> product);

  cuda::GemmEngine engine_;
  cuda::Stream side_;
  const std::vector<PlacedGroup>* groups_;
  std::vector<Buffer> buffers_;
  int64_t capacity_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_
