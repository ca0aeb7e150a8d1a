// What the copy engine did: numbers for reports, spans for traces.
#ifndef MILLRACE_WORKER_STREAM_STREAM_STATS_H_
#define MILLRACE_WORKER_STREAM_STREAM_STATS_H_

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/time/time.h"
#include "proto/bytes.h"
#include "worker/stream/stream_device.h"

namespace millrace {

// Since the stream was made. Subtract two to know about the time between them.
struct StreamStats {
  struct Stall {
    absl::Duration time;
    int64_t count = 0;
  };
  Bytes copied;
  int64_t copies = 0;                       // chunks
  int64_t groups = 0;                       // brought whole
  absl::Duration busy;                      // the link was copying
  std::array<Stall, kStreamStalls> stalls;  // by StreamStall; the time between copies
  int64_t drops = 0;                        // groups brought for a pass that came otherwise
  Bytes dropped;                            // what they had in the ring
  int64_t lost_events = 0;                  // not drained in time
  absl::Time first_begin = absl::InfiniteFuture(), last_end = absl::InfinitePast();

  const Stall& stall(StreamStall cause) const { return stalls[static_cast<size_t>(cause)]; }
  // Share of the time from the first copy's begin to the last one's end without a copy: 0 to 1.
  double idle_share() const;
};

// The link was copying (a part of) one group without a break.
struct CopyEvent {
  int group = -1;
  absl::Time begin, end;
  Bytes bytes;
};

// Makes both from copies queued and finished. Not thread-safe.
class StreamRecorder {
 public:
  explicit StreamRecorder(size_t max_events) : max_events_(max_events) {}

  // The copying thread cannot go on since `now`, because of `cause`; or can.
  void Blocked(StreamStall cause, absl::Time now);
  void Unblocked(absl::Time now);
  // It waited for the bytes of the chunk that is queued next.
  void WaitedForSource(absl::Duration time) {
    blocked_[static_cast<size_t>(StreamStall::kSource)] += time;
  }
  void Queued(const StreamChunk& chunk, absl::Time now);
  // The oldest queued copy was made.
  void Finished(const CopySpan& span);
  void Dropped(Bytes ring_bytes);
  void GroupQueued() { ++stats_.groups; }

  int64_t queued() const { return queued_; }  // copies so far
  int64_t finished() const { return stats_.copies; }
  const StreamStats& stats() const { return stats_; }
  std::vector<CopyEvent> TakeEvents();

 private:
  struct Pending {
    int group;
    Bytes bytes;
    absl::Time queued;
    StreamStall cause;  // what kept it from being queued
  };
  void Charge(StreamStall cause, absl::Duration time);
  void AddEvent(const CopyEvent& event);

  const size_t max_events_;
  StreamStats stats_;
  int64_t queued_ = 0;
  std::deque<Pending> pending_;
  std::deque<CopyEvent> events_;
  std::array<absl::Duration, kStreamStalls> blocked_;  // since the last copy was queued
  StreamStall blocked_by_ = StreamStall::kThread;      // kThread: not blocked
  absl::Time blocked_since_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_STREAM_STATS_H_
