#include "kernels/cuda/cublas_lt.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

constexpr size_t kMaxPlans = 4096;  // then all are dropped: a bound, never reached by one model

absl::Status LtStatus(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const std::string message = absl::StrCat(call, ": ", cublasLtGetStatusName(status), " (",
                                           cublasLtGetStatusString(status), ")");
  switch (status) {
    case CUBLAS_STATUS_ALLOC_FAILED:
      return absl::ResourceExhaustedError(message);
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return absl::UnimplementedError(message);
    default:
      return absl::InternalError(message);
  }
}

#define MILLRACE_LT_RETURN_IF_ERROR(call) MILLRACE_RETURN_IF_ERROR(LtStatus((call), #call))

// The largest power of two up to 256 that divides the address.
int64_t Alignment(const void* p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  return static_cast<int64_t>((address | 256) & (~(address | 256) + 1));
}

}  // namespace

absl::StatusOr<GemmEngine> GemmEngine::Create(int device, void* workspace, Bytes size) {
  MILLRACE_CHECK(size >= Bytes(0) && (workspace != nullptr || size == Bytes(0)));
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  cublasLtHandle_t handle = nullptr;
  MILLRACE_LT_RETURN_IF_ERROR(cublasLtCreate(&handle));
  return GemmEngine(handle, workspace, size);
}

// cuBLASLt counts in columns: a row-major matrix is its transpose. So y^T [rows, n] = w x^T, with w
// stored as [k, rows] and to be transposed, and x stored as [k, n].
absl::StatusOr<GemmEngine::Plan> GemmEngine::MakePlan(const Shape& shape) const {
  const auto [n, k, rows, ldx, ldw, ldy, align_x, align_w, align_y, y_bytes] = shape;
  Plan plan;
  cublasLtMatmulDesc_t product = nullptr;
  MILLRACE_LT_RETURN_IF_ERROR(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  plan.product.reset(product);
  const cublasOperation_t transpose = CUBLAS_OP_T;
  MILLRACE_LT_RETURN_IF_ERROR(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                             &transpose, sizeof(transpose)));
  auto layout = [](cudaDataType_t type, int64_t height, int64_t width, int64_t ld,
                   Layout& out) -> absl::Status {
    cublasLtMatrixLayout_t made = nullptr;
    MILLRACE_LT_RETURN_IF_ERROR(cublasLtMatrixLayoutCreate(
        &made, type, static_cast<uint64_t>(height), static_cast<uint64_t>(width), ld));
    out.reset(made);
    return absl::OkStatus();
  };
  MILLRACE_RETURN_IF_ERROR(layout(CUDA_R_16F, k, rows, ldw, plan.w));
  MILLRACE_RETURN_IF_ERROR(layout(CUDA_R_16F, k, n, ldx, plan.x));
  MILLRACE_RETURN_IF_ERROR(layout(y_bytes == 2 ? CUDA_R_16F : CUDA_R_32F, rows, n, ldy, plan.y));
  MILLRACE_RETURN_IF_ERROR(ChooseAlgorithm(shape, plan));
  return plan;
}

absl::Status GemmEngine::ChooseAlgorithm(const Shape& shape, Plan& plan) const {
  cublasLtMatmulPreference_t preference = nullptr;
  MILLRACE_LT_RETURN_IF_ERROR(cublasLtMatmulPreferenceCreate(&preference));
  struct DestroyPreference {
    void operator()(cublasLtMatmulPreference_t p) const {
      (void)cublasLtMatmulPreferenceDestroy(p);
    }
  };
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, DestroyPreference> owner(preference);
  const uint64_t workspace = static_cast<uint64_t>(size_.count());
  MILLRACE_LT_RETURN_IF_ERROR(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)));
  const uint32_t x = static_cast<uint32_t>(shape[6]), w = static_cast<uint32_t>(shape[7]),
                 y = static_cast<uint32_t>(shape[8]);
  const std::pair<cublasLtMatmulPreferenceAttributes_t, uint32_t> alignments[] = {
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y}};
  for (const auto& [attribute, bytes] : alignments) {
    MILLRACE_LT_RETURN_IF_ERROR(
        cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof(bytes)));
  }
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  MILLRACE_LT_RETURN_IF_ERROR(
      cublasLtMatmulAlgoGetHeuristic(handle_.get(), plan.product.get(), plan.w.get(), plan.x.get(),
                                     plan.y.get(), plan.y.get(), preference, 1, &found, &count));
  if (count < 1 || found.state != CUBLAS_STATUS_SUCCESS || found.workspaceSize > workspace) {
    return absl::UnimplementedError("cublasLtMatmulAlgoGetHeuristic: no algorithm");
  }
  plan.algorithm = found.algo;
  plan.workspace = found.workspaceSize;
  return absl::OkStatus();
}

absl::Status GemmEngine::Gemm(const __half* x, int64_t n, int64_t k, int64_t ldx, const __half* w,
                              int64_t rows, int64_t ldw, float alpha, float* y, int64_t ldy,
                              bool accumulate, StreamView stream) {
  return Multiply({n, k, rows, ldx, ldw, ldy, Alignment(x), Alignment(w), Alignment(y), 4}, x, w,
                  alpha, accumulate ? 1.0f : 0.0f, y, stream);
}

absl::Status GemmEngine::GemmHalf(const __half* x, int64_t n, int64_t k, int64_t ldx,
                                  const __half* w, int64_t rows, int64_t ldw, float alpha,
                                  __half* y, int64_t ldy, StreamView stream) {
  return Multiply({n, k, rows, ldx, ldw, ldy, Alignment(x), Alignment(w), Alignment(y), 2}, x, w,
                  alpha, 0.0f, y, stream);
}

absl::Status GemmEngine::Multiply(const Shape& shape, const __half* x, const __half* w, float alpha,
                                  float beta, void* y, StreamView stream) {
  const auto& [n, k, rows, ldx, ldw, ldy, align_x, align_w, align_y, y_bytes] = shape;
  MILLRACE_CHECK(n >= 0 && k > 0 && rows >= 0 && ldx >= k && ldw >= k && ldy >= rows);
  if (n == 0 || rows == 0) return absl::OkStatus();
  auto name = [&shape] {
    return absl::StrCat("product of [", shape[0], ", ", shape[1], "] rows ", shape[3],
                        " apart and [", shape[2], ", ", shape[1], "] rows ", shape[4],
                        " apart into rows ", shape[5], " apart");
  };
  auto found = plans_.find(shape);
  if (found == plans_.end()) {
    absl::StatusOr<Plan> plan = MakePlan(shape);
    if (!plan.ok()) return Annotate(plan.status(), name());
    if (plans_.size() >= kMaxPlans) plans_.clear();
    found = plans_.emplace(shape, *std::move(plan)).first;
  }
  const Plan& plan = found->second;
  const absl::Status status = LtStatus(
      cublasLtMatmul(handle_.get(), plan.product.get(), &alpha, w, plan.w.get(), x, plan.x.get(),
                     &beta, y, plan.y.get(), y, plan.y.get(), &plan.algorithm, workspace_,
                     static_cast<size_t>(size_.count()), stream.get()),
      "cublasLtMatmul");
  return status.ok() ? status : Annotate(status, name());
}

}  // namespace millrace::cuda
