// PrefillMatmul: products with many activation rows. The weights of a group become f16 in one of two
// buffers, on a stream of their own while the product before is running, then cuBLASLt multiplies.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_
#define MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_

#include <array>
#include <functional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/stream.h"
#include "worker/backend/cuda/weight_pool.h"
#include "worker/stream/weight_stream.h"

namespace millrace {

// Belongs to its backend's thread.
class PrefillMatmul {
 public:
  // Makes a group's weights readable on a stream from here on, until what is returned dies.
  using Bring = std::function<absl::StatusOr<WeightLease>(int group, cuda::StreamView stream)>;

  // `buffers`: of `capacity` values each, at least 16 rows of any group; larger groups are multiplied
  // some rows at a time. `groups` outlives this.
  static absl::StatusOr<PrefillMatmul> Create(int device, cuda::GemmEngine engine,
                                              std::array<__half*, 2> buffers, size_t capacity,
                                              const std::vector<PlacedGroup>* groups, Bring bring);

  // Of the pass begun: the groups that will be multiplied here, in order. While one is, the next is
  // dequantised.
  void Expect(absl::Span<const int> order);

  // out[n, group.rows] f32 (+)= x[n, group.cols] * W^T + biases.
  absl::Status Multiply(int index, const __half* x, int64_t n, int64_t ldx, bool accumulate,
                        float* out, int64_t ldo, cuda::StreamView stream);
  // The same rounded to f16, of a group without biases.
  absl::Status MultiplyToHalf(int index, const __half* x, int64_t n, int64_t ldx, __half* out,
                              int64_t ldo, cuda::StreamView stream);

 private:
  struct Buffer {
    __half* data = nullptr;
    int64_t at = -1;    // the piece that is (being) put there
    cuda::Event ready;  // they are there
    cuda::Event free;   // the last product that read them is done
  };
  PrefillMatmul(cuda::GemmEngine engine, cuda::Stream side, const std::vector<PlacedGroup>* groups,
                Bring bring)
      : engine_(std::move(engine)), side_(std::move(side)), groups_(groups),
        bring_(std::move(bring)) {}
  // Rows of one run, as many as a buffer holds.
  struct Piece {
    int group = 0;
    size_t run = 0;
    int64_t first_row = 0, rows = 0;  // of the run
    int64_t column = 0;               // of the group's first result that comes from it
    bool begins = false, ends = false;  // its group
  };
  void Cut(int group);
  // Queues the weights of pieces_[at] into the buffer that `at` uses.
  absl::Status Prepare(size_t at);
  // Calls `product` (weights, rows, multiplier, first row) for the pieces of the group, between
  // waiting for the weights and releasing them.
  absl::Status ForPieces(
      int index, cuda::StreamView stream,
      absl::FunctionRef<absl::Status(const __half*, int64_t, float, int64_t)> product);

  cuda::GemmEngine engine_;
  cuda::Stream side_;
  const std::vector<PlacedGroup>* groups_;
  Bring bring_;
  std::vector<Buffer> buffers_;
  std::vector<Piece> pieces_;  // of the pass, in order
  size_t next_ = 0;            // piece to multiply
  WeightLease lease_;          // of the group whose pieces are being prepared
  int64_t capacity_ = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_PREFILL_MATMUL_H_
