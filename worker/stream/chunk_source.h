// ChunkSource: the seam between the streaming of weights and where the bytes come from: pages that
// the device may read in place, or a disk.
#ifndef MILLRACE_WORKER_STREAM_CHUNK_SOURCE_H_
#define MILLRACE_WORKER_STREAM_CHUNK_SOURCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/stream/stream_group.h"

namespace millrace {

struct HostChunk {
  const std::byte* data = nullptr;  // memory that the device copies from without a stage
  absl::Duration waited;            // for the bytes, on the host
};

// Chunks are requested, then taken in the same order, then sent. One thread, but for Cancel.
class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  // Begins to read ahead. False where there is no room now: ask again after Copied.
  virtual bool Request(const StreamChunk& chunk) = 0;
  // The oldest requested chunk, which is `chunk`: waits until its bytes are there. DeadlineExceeded
  // after `timeout`, Cancelled, DataLoss where they cannot be read.
  virtual absl::StatusOr<HostChunk> Take(const StreamChunk& chunk, absl::Duration timeout) = 0;
  // The chunk taken last is being copied as copy number `copy` (0, 1, ...): its memory stays as it
  // is until then.
  virtual void Sent(int64_t copy) = 0;
  // Copies with numbers below `copies` are done.
  virtual void Copied(int64_t copies) = 0;
  // Requests that were not taken are not wanted any more.
  virtual void Forget() = 0;
  // Any thread. Take returns Cancelled from now on.
  virtual void Cancel() = 0;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_CHUNK_SOURCE_H_
