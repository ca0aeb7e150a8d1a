#include "kernels/cuda/status.h"

#include "absl/strings/str_cat.h"

namespace millrace::cuda {

absl::Status ToStatus(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return absl::OkStatus();
  (void)cudaGetLastError();
  int device = -1;
  const bool known = cudaGetDevice(&device) == cudaSuccess;
  if (!known) (void)cudaGetLastError();
  const std::string message =
      absl::StrCat(call, " at ", file, ":", line, " on ",
                   known ? absl::StrCat("gpu", device) : std::string("no device"), ": ",
                   cudaGetErrorName(error), " (", cudaGetErrorString(error), ")");
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

}  // namespace millrace::cuda
