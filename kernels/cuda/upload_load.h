// UploadLoad: copies from host memory to a device that never stop, to measure what runs beside them.
#ifndef MILLRACE_KERNELS_CUDA_UPLOAD_LOAD_H_
#define MILLRACE_KERNELS_CUDA_UPLOAD_LOAD_H_

#include <atomic>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/buffers.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

class UploadLoad {
 public:
  // Registers `from` (page-aligned, it outlives this) and copies all of it to `device` again and
  // again, from a thread of its own, until destroyed. Takes two chunks of 16 MiB on the device.
  // Unimplemented, Internal, ResourceExhausted: as HostRegistration and DeviceBuffer.
  static absl::StatusOr<std::unique_ptr<UploadLoad>> Start(int device,
                                                           absl::Span<const std::byte> from);
  // Waits for the copies under way, a few milliseconds.
  ~UploadLoad();
  UploadLoad(const UploadLoad&) = delete;
  UploadLoad& operator=(const UploadLoad&) = delete;

 private:
  UploadLoad(HostRegistration from, DeviceBuffer to, Stream stream, Event first, Event second);
  void Loop();
  // Queues one chunk after the chunk before the last has arrived.
  absl::Status CopyNext(int64_t turn);

  const HostRegistration from_;
  const DeviceBuffer to_;
  const Stream stream_;
  const Event arrived_[2];
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_UPLOAD_LOAD_H_
