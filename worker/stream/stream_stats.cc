#include "worker/stream/stream_stats.h"

#include <algorithm>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

// Copies of one group that are no further apart are one event.
constexpr absl::Duration kJoin = absl::Microseconds(20);

}  // namespace

double StreamStats::idle_share() const {
  const absl::Duration all = last_end - first_begin;
  if (copies == 0 || all <= absl::ZeroDuration()) return 0;
  return 1.0 - absl::FDivDuration(busy, all);
}

void StreamRecorder::Blocked(StreamStall cause, absl::Time now) {
  if (blocked_by_ == cause) return;
  Unblocked(now);
  blocked_by_ = cause;
  blocked_since_ = now;
}

void StreamRecorder::Unblocked(absl::Time now) {
  if (blocked_by_ == StreamStall::kThread) return;
  blocked_[static_cast<size_t>(blocked_by_)] += now - blocked_since_;
  blocked_by_ = StreamStall::kThread;
}

void StreamRecorder::Queued(const StreamChunk& chunk, absl::Time now) {
  Unblocked(now);
  const auto longest = std::max_element(blocked_.begin(), blocked_.end());
  const StreamStall cause = *longest > absl::ZeroDuration()
                                ? static_cast<StreamStall>(longest - blocked_.begin())
                                : StreamStall::kThread;
  blocked_ = {};
  pending_.push_back({chunk.group, chunk.size(), now, cause});
  ++queued_;
}

void StreamRecorder::Charge(StreamStall cause, absl::Duration time) {
  if (time <= absl::ZeroDuration()) return;
  StreamStats::Stall& stall = stats_.stalls[static_cast<size_t>(cause)];
  stall.time += time;
  ++stall.count;
}

// The time since the copy before: until this one was queued it is the host's, then the device's.
void StreamRecorder::Finished(const CopySpan& span) {
  MILLRACE_CHECK(!pending_.empty());
  const Pending copy = pending_.front();
  pending_.pop_front();
  if (stats_.copies > 0) {
    const absl::Time queued =
        std::clamp(copy.queued, stats_.last_end, std::max(span.begin, stats_.last_end));
    Charge(copy.cause, queued - stats_.last_end);
    Charge(span.waited_for, span.begin - queued);
  }
  ++stats_.copies;
  stats_.copied += copy.bytes;
  stats_.busy += span.end - span.begin;
  stats_.first_begin = std::min(stats_.first_begin, span.begin);
  stats_.last_end = std::max(stats_.last_end, span.end);
  AddEvent({copy.group, span.begin, span.end, copy.bytes});
}

void StreamRecorder::AddEvent(const CopyEvent& event) {
  if (!events_.empty() && events_.back().group == event.group &&
      event.begin - events_.back().end <= kJoin) {
    events_.back().end = event.end;
    events_.back().bytes += event.bytes;
    return;
  }
  if (events_.size() >= max_events_) {
    ++stats_.lost_events;
    return;
  }
  events_.push_back(event);
}

void StreamRecorder::Dropped(Bytes ring_bytes) {
  ++stats_.drops;
  stats_.dropped += ring_bytes;
}

std::vector<CopyEvent> StreamRecorder::TakeEvents() {
  std::vector<CopyEvent> events(events_.begin(), events_.end());
  events_.clear();
  return events;
}

}  // namespace millrace
