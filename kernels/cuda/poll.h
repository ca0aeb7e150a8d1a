// The bounded wait of streams and events.
#ifndef MILLRACE_KERNELS_CUDA_POLL_H_
#define MILLRACE_KERNELS_CUDA_POLL_H_

#include <cuda_runtime_api.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace millrace::cuda {

// Calls `query` until it says something else than cudaErrorNotReady: in a tight loop for the first
// 200 microseconds, then sleeping 50 microseconds between calls. CUDA's own waits have no bound.
absl::Status PollUntilReady(absl::FunctionRef<cudaError_t()> query, const char* call,
                            absl::Duration timeout);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_POLL_H_
