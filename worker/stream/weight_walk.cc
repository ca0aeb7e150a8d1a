// WeightStream's walk: what the copy thread does, one step at a time.
#include <algorithm>
#include <utility>

#include "proto/status_macros.h"
#include "worker/stream/weight_stream.h"

namespace millrace {
namespace {

// Between looks at what the device has copied.
constexpr absl::Duration kPoll = absl::Milliseconds(1);
constexpr absl::Duration kIdlePoll = absl::Milliseconds(100);
// Chunks asked for ahead of the one that is copied; the source stops us earlier.
constexpr int kMaxRequests = 256;

}  // namespace

void WeightStream::Run() {
  mu_.Lock();
  while (!cancelled_) {
    const Step step = TakeStep();
    if (step == Step::kDid || cancelled_) continue;
    const bool copying = recorder_.queued() > recorder_.finished();
    if (step == Step::kWaits && copying) {
      mu_.Unlock();
      device_->WaitForCopy(kPoll).IgnoreError();  // a failure shows in the next step
      mu_.Lock();
    } else {
      const bool soon = error_.ok() && (copying || step == Step::kWaits);
      work_.WaitWithTimeout(&mu_, soon ? kPoll : kIdlePoll);
    }
  }
  mu_.Unlock();
}

void WeightStream::Pump() {
  absl::MutexLock lock(&mu_);
  MILLRACE_CHECK(!threaded());
  PumpLocked();
}

void WeightStream::PumpLocked() {
  while (TakeStep() == Step::kDid) {
  }
}

void WeightStream::Fail(const absl::Status& error, bool final) {
  if (error_.ok() || (final && !error_is_final_)) {
    error_ = error;
    error_is_final_ = final;
  }
  progress_.SignalAll();
}

WeightStream::Step WeightStream::TakeStep() {
  if (cancelled_ || !error_.ok()) return Step::kNothing;
  const absl::StatusOr<Step> step = TryStep();
  if (!step.ok()) {
    Fail(step.status(), true);
    return Step::kNothing;
  }
  switch (*step) {
    case Step::kDid:
      break;
    case Step::kNoRoom:
      no_room_ = true;
      progress_.SignalAll();
      recorder_.Blocked(WhyNoRoom(), device_->Now());
      break;
    case Step::kWaits:
      if (requests_ == 0) {
        recorder_.Blocked(StreamStall::kSource, device_->Now());
      } else {
        recorder_.Unblocked(device_->Now());
      }
      break;
    case Step::kNothing:
      recorder_.Blocked(StreamStall::kIdle, device_->Now());
      break;
  }
  return *step;
}

absl::StatusOr<WeightStream::Step> WeightStream::TryStep() {
  RemoveDropped();
  MILLRACE_RETURN_IF_ERROR(CollectFinished());
  if (order_.empty()) return Step::kNothing;
  RequestAhead();
  if (filling_ < 0) {
    if (next_fill_ >= end_position()) return Step::kNothing;
    MILLRACE_ASSIGN_OR_RETURN(const bool opened, OpenEntry());
    if (!opened) return Step::kNoRoom;
  }
  const int64_t copying = recorder_.queued() - recorder_.finished();
  if (requests_ == 0 || copying >= device_->max_queued_copies()) return Step::kWaits;
  MILLRACE_RETURN_IF_ERROR(QueueChunk());
  return Step::kDid;
}

// What is dropped is the newest in the ring. Copies of it may be queued: whoever gets its place is
// written after them, by the same queue.
void WeightStream::RemoveDropped() {
  while (!ring_.empty() && entries_[static_cast<size_t>(ring_.back())].dropped) {
    if (ring_.back() == filling_) filling_ = -1;
    entries_[static_cast<size_t>(ring_.back())] = Entry();
    ring_.pop_back();
    arena_.FreeNewest();
  }
}

absl::Status WeightStream::CollectFinished() {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<CopySpan> spans, device_->Finished());
  for (const CopySpan& span : spans) recorder_.Finished(span);
  if (!spans.empty()) source_->Copied(recorder_.finished());
  return absl::OkStatus();
}

void WeightStream::RequestAhead() {
  if (forget_) {
    source_->Forget();
    requests_ = 0;
    requested_ = {next_fill_, 0};
    if (filling_ >= 0) {
      const Entry& entry = entries_[static_cast<size_t>(filling_)];
      requested_ = {entry.position, entry.queued};
    }
    forget_ = false;
  }
  while (requests_ < kMaxRequests && requested_.position < end_position()) {
    const StreamGroup& g = groups_[static_cast<size_t>(GroupAt(requested_.position))];
    if (!source_->Request(g.chunks[requested_.chunk])) return;
    ++requests_;
    if (++requested_.chunk == g.chunks.size()) requested_ = {requested_.position + 1, 0};
  }
}

absl::StatusOr<bool> WeightStream::OpenEntry() {
  const int group = GroupAt(next_fill_);
  const Bytes bytes = groups_[static_cast<size_t>(group)].ring_bytes;
  for (;;) {
    std::optional<Bytes> at;
    if (ring_.size() < entries_.size()) at = arena_.Take(bytes);
    if (at) {
      const auto free = std::find_if(entries_.begin(), entries_.end(),
                                     [](const Entry& e) { return e.state == State::kFree; });
      *free = Entry{State::kFilling, false, group, next_fill_++, *at, 0};
      filling_ = static_cast<int>(free - entries_.begin());
      ring_.push_back(filling_);
      return true;
    }
    const int oldest = ring_.front();
    if (entries_[static_cast<size_t>(oldest)].state != State::kReleased) return false;
    MILLRACE_RETURN_IF_ERROR(device_->WriteAfterRelease(oldest));
    entries_[static_cast<size_t>(oldest)] = Entry();
    ring_.pop_front();
    arena_.FreeOldest();
  }
}

absl::Status WeightStream::CopyChunk(const StreamChunk& chunk, Bytes ring_offset,
                                     absl::Duration* waited, bool* lost) {
  const absl::StatusOr<HostChunk> host = source_->Take(chunk, options_.source_timeout);
  *lost = !host.ok();
  if (!host.ok()) return host.status();
  *waited = host->waited;
  return device_->Copy(chunk, host->data, ring_offset);
}

absl::Status WeightStream::QueueChunk() {
  const int slot = filling_;
  Entry& entry = entries_[static_cast<size_t>(slot)];
  const StreamGroup& group = groups_[static_cast<size_t>(entry.group)];
  const StreamChunk& chunk = group.chunks[entry.queued];
  const Bytes offset = entry.offset;
  absl::Duration waited;
  bool lost = false;
  --requests_;
  mu_.Unlock();
  absl::Status copied = CopyChunk(chunk, offset, &waited, &lost);
  mu_.Lock();
  // BeginPass may have come meanwhile and dropped the entry; its slot is ours until RemoveDropped.
  if (!copied.ok()) {
    copied =
        Annotate(copied, absl::StrCat("streaming ", group.parts[static_cast<size_t>(chunk.part)]));
    if (!lost) return copied;
    LoseEntry(slot, copied);
    return absl::OkStatus();
  }
  recorder_.WaitedForSource(waited);
  recorder_.Queued(chunk, device_->Now());
  source_->Sent(recorder_.queued() - 1);
  if (++entry.queued < group.chunks.size()) return absl::OkStatus();
  MILLRACE_RETURN_IF_ERROR(device_->RecordArrival(slot));
  entry.state = State::kQueued;
  filling_ = -1;
  recorder_.GroupQueued();
  progress_.SignalAll();
  return absl::OkStatus();
}

// The source could not give the bytes: the pass fails, the next one may try again.
void WeightStream::LoseEntry(int slot, const absl::Status& error) {
  Entry& entry = entries_[static_cast<size_t>(slot)];
  forget_ = true;
  if (entry.dropped) return;  // nobody waits for it any more
  entry.dropped = true;
  Fail(error, false);
}

// Nothing to give back while no pass uses the ring: that is no fault of its size.
StreamStall WeightStream::WhyNoRoom() const {
  const bool used = std::any_of(entries_.begin(), entries_.end(),
                                [](const Entry& e) { return e.state == State::kLeased; });
  const bool running = pass_open_ && next_acquire_ < static_cast<int64_t>(order_.size());
  return used || running ? StreamStall::kRing : StreamStall::kIdle;
}

}  // namespace millrace
