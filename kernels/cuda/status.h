// CUDA errors as absl::Status.
#ifndef MILLRACE_KERNELS_CUDA_STATUS_H_
#define MILLRACE_KERNELS_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "proto/status_macros.h"

namespace millrace::cuda {

// OK for cudaSuccess; ResourceExhausted for out-of-memory; Internal for everything else. The
// message names the call, file:line, the current device and CUDA's own name and text of the error.
// Clears the runtime's last error, so that a failure is reported once and by the call that caused
// it.
absl::Status ToStatus(cudaError_t error, const char* call, const char* file, int line);

}  // namespace millrace::cuda

#define MILLRACE_CUDA_STATUS(call) ::millrace::cuda::ToStatus((call), #call, __FILE__, __LINE__)
#define MILLRACE_CUDA_RETURN_IF_ERROR(call) MILLRACE_RETURN_IF_ERROR(MILLRACE_CUDA_STATUS(call))

#endif  // MILLRACE_KERNELS_CUDA_STATUS_H_
