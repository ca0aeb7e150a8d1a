// GemmEngine: dense FP16 products through cuBLASLt.
#ifndef MILLRACE_KERNELS_CUDA_CUBLAS_LT_H_
#define MILLRACE_KERNELS_CUDA_CUBLAS_LT_H_

#include <cublasLt.h>
#include <cuda_fp16.h>

#include <array>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"
#include "proto/bytes.h"

namespace millrace::cuda {

// Move-only, one thread at a time. All products share one workspace: they run on one stream, or on
// streams that wait for each other.
class GemmEngine {
 public:
  static constexpr Bytes kWorkspace{int64_t{32} << 20};  // a good size

  // For `device`, which is current in every call. `workspace`: device memory, 256-byte aligned,
  // that outlives the engine and its queued work.
  static absl::StatusOr<GemmEngine> Create(int device, void* workspace, Bytes size);

  // y[n, rows] f32 = (accumulate: y +) alpha * x[n, k] f16 * w[rows, k]^T f16, FP32 accumulation.
  // Row-major, ld*: elements between rows. Leading dimensions that are multiples of 8 and 16-byte
  // aligned addresses run fastest. The algorithm for a shape is chosen at its first call, on the
  // host; a graph should not capture that one. Repeated calls give equal results. Unimplemented
  // where cuBLASLt has no algorithm.
  absl::Status Gemm(const __half* x, int64_t n, int64_t k, int64_t ldx, const __half* w,
                    int64_t rows, int64_t ldw, float alpha, float* y, int64_t ldy,
                    bool accumulate, StreamView stream);
  // The same with the result rounded to f16; beyond its range infinite.
  absl::Status GemmHalf(const __half* x, int64_t n, int64_t k, int64_t ldx, const __half* w,
                        int64_t rows, int64_t ldw, float alpha, __half* y, int64_t ldy,
                        StreamView stream);

 private:
  struct Destroy {
    void operator()(cublasLtHandle_t p) const { (void)cublasLtDestroy(p); }
    void operator()(cublasLtMatmulDesc_t p) const { (void)cublasLtMatmulDescDestroy(p); }
    void operator()(cublasLtMatrixLayout_t p) const { (void)cublasLtMatrixLayoutDestroy(p); }
  };
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy>;
  struct Plan {
    std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy> product;
    Layout w, x, y;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace = 0;
  };
  // n, k, rows, ldx, ldw, ldy, the alignments of x, w and y, and bytes per value of y: all that the
  // choice depends on.
  using Shape = std::array<int64_t, 10>;

  GemmEngine(cublasLtHandle_t handle, void* workspace, Bytes size)
      : handle_(handle), workspace_(workspace), size_(size) {}
  absl::StatusOr<Plan> MakePlan(const Shape& shape) const;
  absl::Status Multiply(const Shape& shape, const __half* x, const __half* w, float alpha,
                        float beta, void* y, StreamView stream);
  absl::Status ChooseAlgorithm(const Shape& shape, Plan& plan) const;

  std::unique_ptr<cublasLtContext, Destroy> handle_;
  void* workspace_;
  Bytes size_;
  absl::flat_hash_map<Shape, Plan> plans_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_CUBLAS_LT_H_
