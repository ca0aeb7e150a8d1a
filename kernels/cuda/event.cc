#include "kernels/cuda/event.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/poll.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {

absl::StatusOr<Event> Event::Create(int device, Timing timing) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  const unsigned flags = timing == Timing::kOn ? cudaEventDefault : cudaEventDisableTiming;
  cudaEvent_t event = nullptr;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&event, flags));
  return Event(event);
}

absl::Status Event::Record(StreamView stream) const {
  return MILLRACE_CUDA_STATUS(cudaEventRecord(event_.get(), stream.get()));
}

absl::Status Event::Block(StreamView stream) const {
  return MILLRACE_CUDA_STATUS(cudaStreamWaitEvent(stream.get(), event_.get(), 0));
}

absl::Status Event::Wait(absl::Duration timeout) const {
  return PollUntilReady([this] { return cudaEventQuery(event_.get()); }, "cudaEventQuery", timeout);
}

absl::StatusOr<absl::Duration> Event::Since(const Event& earlier) const {
  float milliseconds = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaEventElapsedTime(&milliseconds, earlier.event_.get(), event_.get()));
  return absl::Milliseconds(static_cast<double>(milliseconds));
}

}  // namespace millrace::cuda
