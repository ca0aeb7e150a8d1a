#include "worker/backend/cuda/device_rows.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "kernels/cuda/buffers.h"
#include "kernels/cuda/status.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<DeviceRows>> DeviceRows::Create(int device) {
  MILLRACE_ASSIGN_OR_RETURN(cuda::Event begin,
                            cuda::Event::Create(device, cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(cuda::Event ready,
                            cuda::Event::Create(device, cuda::Event::Timing::kOn));
  return std::unique_ptr<DeviceRows>(new DeviceRows(device, std::move(begin), std::move(ready)));
}

absl::Status DeviceRows::Begin(cuda::StreamView stream) {
  if (taken_ != nullptr) MILLRACE_RETURN_IF_ERROR(taken_->Block(stream));
  return begin_.Record(stream);
}

absl::Status DeviceRows::Offer(cuda::StreamView stream) { return ready_.Record(stream); }

absl::Status DeviceRows::WaitUntilTaken(absl::Duration timeout) const {
  return taken_ == nullptr ? absl::OkStatus() : taken_->Wait(timeout);
}

// Access both may do without: the driver then copies through host memory of its own.
absl::Status RowsReceiver::EnablePeer(int peer) {
  if (peer == device_ || !peers_.insert(peer).second) return absl::OkStatus();
  int possible = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceCanAccessPeer(&possible, device_, peer));
  if (possible == 0) return absl::OkStatus();
  const cudaError_t enabled = cudaDeviceEnablePeerAccess(peer, 0);
  if (enabled != cudaErrorPeerAccessAlreadyEnabled) return MILLRACE_CUDA_STATUS(enabled);
  (void)cudaGetLastError();  // another stage of this process was first
  return absl::OkStatus();
}

absl::Status RowsReceiver::Take(DeviceRows& rows, const void* from, void* to, Bytes size,
                                cuda::StreamView stream) {
  if (taken_ == nullptr) {
    MILLRACE_ASSIGN_OR_RETURN(cuda::Event taken, cuda::Event::Create(device_));
    taken_ = std::make_shared<const cuda::Event>(std::move(taken));
  }
  MILLRACE_RETURN_IF_ERROR(EnablePeer(rows.device_));
  MILLRACE_RETURN_IF_ERROR(rows.ready_.Block(stream));
  if (rows.device_ == device_) {
    MILLRACE_RETURN_IF_ERROR(cuda::CopyAsync(to, from, size, stream));
  } else {
    MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemcpyPeerAsync(
        to, device_, from, rows.device_, static_cast<size_t>(size.count()), stream.get()));
  }
  // From here on the copy may read the rows: the sender must know of it.
  rows.taken_ = taken_;
  return taken_->Record(stream);
}

}  // namespace millrace
