// The bounded wait of streams and events.
#ifndef MILLRACE_KERNELS_CUDA_POLL_H_
#define MILLRACE_KERNELS_CUDA_POLL_H_

#include <cuda_runtime_api.h>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace millrace::cuda {

// Calls `query` until it says something else than cudaErrorNotReady: giving way to other threads
// between calls for the first 50 milliseconds (a decode pass is over by then, and a sleep would add
// to every token), then sleeping 50 microseconds. CUDA's own waits have no bound.
absl::Status PollUntilReady(absl::FunctionRef<cudaError_t()> query, const char* call,
                            absl::Duration timeout);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_POLL_H_
