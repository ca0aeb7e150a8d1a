// Event: a point in a stream's work that streams and the host can wait for, and that can be timed.
#ifndef MILLRACE_KERNELS_CUDA_EVENT_H_
#define MILLRACE_KERNELS_CUDA_EVENT_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

// Move-only. May be recorded again and again; each wait means the latest Record before it.
class Event {
 public:
  enum class Timing { kOff, kOn };  // kOn makes waiting dearer
  static absl::StatusOr<Event> Create(int device, Timing timing = Timing::kOff);

  absl::Status Record(StreamView stream) const;
  // Work queued on `stream` from here on starts after the event; the host does not wait.
  absl::Status Block(StreamView stream) const;
  // The host waits; DeadlineExceeded after `timeout`.
  absl::Status Wait(absl::Duration timeout) const;
  // Device time from `earlier` to this event; both with Timing::kOn and reached.
  absl::StatusOr<absl::Duration> Since(const Event& earlier) const;

 private:
  struct Destroy {
    void operator()(cudaEvent_t e) const { (void)cudaEventDestroy(e); }
  };
  explicit Event(cudaEvent_t event) : event_(event) {}
  std::unique_ptr<CUevent_st, Destroy> event_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_EVENT_H_
