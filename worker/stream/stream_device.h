// StreamDevice: the seam between the streaming of weights and the device that receives them.
//
// The device has a ring of memory, a queue of copies from host memory into it, and a queue of
// compute work. Whatever is queued runs later; the queues wait for each other by slots: a group
// that is in the ring has a slot, and a slot has two marks, arrival (its bytes are in place) and
// release (the work that read them is done).
//
// Threading: copy-side functions are called by one thread at a time, compute-side functions by the
// compute queue's owner, Now by anyone. None waits for the device but WaitForCopy and Quiesce.
// Errors: Internal for a device that failed, with the call named.
#ifndef MILLRACE_WORKER_STREAM_STREAM_DEVICE_H_
#define MILLRACE_WORKER_STREAM_STREAM_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/bytes.h"
#include "worker/stream/stream_group.h"

namespace millrace {

// Why the copy engine stood still before a copy.
enum class StreamStall : uint8_t {
  kRing,    // no room: a lease was not returned, or the work that reads it was not done
  kSource,  // the bytes were not in memory yet
  kIdle,    // nothing to do: no pass had begun and the next one's beginning was in the ring
  kThread,  // the copy thread was late
};
inline constexpr int kStreamStalls = 4;

// When one copy used the link; by the clock of Now.
struct CopySpan {
  absl::Time begin, end;
  StreamStall waited_for = StreamStall::kRing;  // what kept it from beginning once it was queued
};

class StreamDevice {
 public:
  virtual ~StreamDevice() = default;

  virtual Bytes ring_size() const = 0;
  virtual int slots() const = 0;
  // Copies that may be queued and not finished.
  virtual int max_queued_copies() const = 0;
  virtual absl::Time Now() const = 0;

  // ---- copy side ----
  // Bytes that copies queued from here on bring are put into the ring after the slot's release.
  virtual absl::Status WriteAfterRelease(int slot) = 0;
  // Queues bringing the chunk from `from` (stays valid until the copy is finished) to its place in
  // the group that begins at `ring_offset`. Copies are made in the order of the calls.
  virtual absl::Status Copy(const StreamChunk& chunk, const std::byte* from, Bytes ring_offset) = 0;
  // The slot's arrival: everything copied so far is in place.
  virtual absl::Status RecordArrival(int slot) = 0;
  // Copies that have left host memory since the last call, in order.
  virtual absl::StatusOr<std::vector<CopySpan>> Finished() = 0;
  // Until Finished has something to tell, or `timeout` is over, which is no error.
  virtual absl::Status WaitForCopy(absl::Duration timeout) = 0;
  // Until all copies are in place. DeadlineExceeded after `timeout`.
  virtual absl::Status Quiesce(absl::Duration timeout) = 0;

  // ---- compute side ----
  // Compute work queued from here on starts after the slot's arrival.
  virtual absl::Status ComputeAfterArrival(int slot) = 0;
  // The slot's release: everything computed so far is done.
  virtual absl::Status RecordRelease(int slot) = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_STREAM_DEVICE_H_
