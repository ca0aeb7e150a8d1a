#include "kernels/cuda/poll.h"

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {

absl::Status PollUntilReady(absl::FunctionRef<cudaError_t()> query, const char* call,
                            absl::Duration timeout) {
  const absl::Time start = absl::Now();
  for (;;) {
    const cudaError_t error = query();
    if (error != cudaErrorNotReady) return ToStatus(error, call, __FILE__, __LINE__);
    (void)cudaGetLastError();
    const absl::Duration waited = absl::Now() - start;
    if (waited >= timeout) {
      return absl::DeadlineExceededError(
          absl::StrCat(call, ": the device was not done after ", absl::FormatDuration(timeout)));
    }
    if (waited < absl::Milliseconds(50)) {
      std::this_thread::yield();
    } else {
      absl::SleepFor(absl::Microseconds(50));
    }
  }
}

}  // namespace millrace::cuda
