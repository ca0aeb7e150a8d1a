#include "kernels/cuda/stream.h"

#include "kernels/cuda/device.h"
#include "kernels/cuda/poll.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {

StreamView::StreamView(cudaStream_t stream) : stream_(stream) { MILLRACE_CHECK(stream != nullptr); }

absl::Status StreamView::Wait(absl::Duration timeout) const {
  return PollUntilReady([this] { return cudaStreamQuery(stream_); }, "cudaStreamQuery", timeout);
}

absl::StatusOr<Stream> Stream::Create(int device) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  cudaStream_t stream = nullptr;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream, device);
}

}  // namespace millrace::cuda
