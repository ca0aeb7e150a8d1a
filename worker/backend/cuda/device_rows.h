// Hidden states that stay on their device on the way to the next stage's, which copies them without
// the host: both devices order the copy by events, no thread waits for it.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_DEVICE_ROWS_H_
#define MILLRACE_WORKER_BACKEND_CUDA_DEVICE_ROWS_H_

#include <memory>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/stream.h"
#include "proto/bytes.h"

namespace millrace {

// The sending side, owned by the stage that computes the rows. Its thread and the receiver's use it
// in turn: the receiver from when the hidden states are handed to it until it calls `taken`.
class DeviceRows {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceRows>> Create(int device);

  // Of a pass: what is queued on `stream` from here on starts after the last copy.
  absl::Status Begin(cuda::StreamView stream);
  // The rows are computed by what has been queued on `stream`.
  absl::Status Offer(cuda::StreamView stream);
  // Device time from Begin to Offer; an error while the device has not come to the end.
  absl::StatusOr<absl::Duration> PassTime() const { return ready_.Since(begin_); }
  // The host waits until the rows are not read any more.
  absl::Status WaitUntilTaken(absl::Duration timeout) const;

 private:
  friend class RowsReceiver;
  DeviceRows(int device, cuda::Event begin, cuda::Event ready)
      : device_(device), begin_(std::move(begin)), ready_(std::move(ready)) {}

  const int device_;
  cuda::Event begin_, ready_;
  std::shared_ptr<const cuda::Event> taken_;  // the receiver's; null before the first copy
};

// The receiving side, owned by the stage that goes on with the rows.
class RowsReceiver {
 public:
  explicit RowsReceiver(int device) : device_(device) {}

  // Queues the copy of `from`, which lie on the device of `rows`. The stream's device is current.
  absl::Status Take(DeviceRows& rows, const void* from, void* to, Bytes size,
                    cuda::StreamView stream);

 private:
  absl::Status EnablePeer(int peer);

  const int device_;
  std::set<int> peers_;  // asked for direct access
  std::shared_ptr<const cuda::Event> taken_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_DEVICE_ROWS_H_
