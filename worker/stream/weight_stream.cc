// The compute side: orders, leases. The walk is in weight_walk.cc.
#include "worker/stream/weight_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {

WeightLease& WeightLease::operator=(WeightLease&& other) noexcept {
  if (this != &other) {
    (void)Release();
    stream_ = std::exchange(other.stream_, nullptr);
    group_ = other.group_;
    slot_ = other.slot_;
    offset_ = other.offset_;
  }
  return *this;
}

absl::Status WeightLease::ComputeAfterArrival() const {
  MILLRACE_CHECK(stream_ != nullptr);
  return stream_->device_->ComputeAfterArrival(slot_);
}

absl::Status WeightLease::Release() {
  WeightStream* stream = std::exchange(stream_, nullptr);
  return stream == nullptr ? absl::OkStatus() : stream->ReleaseSlot(slot_);
}

absl::StatusOr<std::unique_ptr<WeightStream>> WeightStream::Create(
    StreamDevice* device, ChunkSource* source, std::vector<StreamGroup> groups,
    const WeightStreamOptions& options) {
  MILLRACE_CHECK(device->slots() > 0 && device->max_queued_copies() > 0);
  for (const StreamGroup& g : groups) {
    MILLRACE_CHECK(!g.chunks.empty() && g.ring_bytes > Bytes(0));
    if (g.ring_bytes > device->ring_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the ring of ", FormatBytes(device->ring_size()), " is too small for ",
                       g.name, ", which takes ", FormatBytes(g.ring_bytes)));
    }
  }
  auto stream =
      std::unique_ptr<WeightStream>(new WeightStream(device, source, std::move(groups), options));
  if (stream->threaded()) stream->thread_ = std::thread([s = stream.get()] { s->Run(); });
  return stream;
}

WeightStream::WeightStream(StreamDevice* device, ChunkSource* source,
                           std::vector<StreamGroup> groups, const WeightStreamOptions& options)
    : device_(device),
      source_(source),
      groups_(std::move(groups)),
      options_(options),
      arena_(device->ring_size()),
      entries_(static_cast<size_t>(device->slots())),
      recorder_(options.max_events) {}

WeightStream::~WeightStream() {
  Cancel();
  if (thread_.joinable()) thread_.join();
  device_->Quiesce(options_.quiesce_timeout).IgnoreError();
}

void WeightStream::Cancel() {
  {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    work_.SignalAll();
    progress_.SignalAll();
  }
  source_->Cancel();
}

absl::Status WeightStream::BeginPass(absl::Span<const int> order) {
  for (int g : order) {
    if (g < 0 || g >= static_cast<int>(groups_.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("group ", g, " of ", groups_.size(), " streamed ones"));
    }
  }
  absl::MutexLock lock(&mu_);
  if (cancelled_) return absl::CancelledError("the streaming of weights was stopped");
  if (!error_.ok() && error_is_final_) return error_;
  error_ = absl::OkStatus();
  pass_open_ = !order.empty();
  if (pass_open_) Restart(order);
  no_room_ = false;
  work_.Signal();
  if (!threaded()) PumpLocked();
  return absl::OkStatus();
}

std::vector<int> WeightStream::PendingSlots() const {
  std::vector<int> slots;
  for (int slot : ring_) {
    const Entry& e = entries_[static_cast<size_t>(slot)];
    if (!e.dropped && (e.state == State::kFilling || e.state == State::kQueued))
      slots.push_back(slot);
  }
  return slots;
}

// Keeps of what is on its way the part that `order` begins with, and lets the walk go on behind it.
void WeightStream::Restart(absl::Span<const int> order) {
  const bool same = std::equal(order.begin(), order.end(), order_.begin(), order_.end());
  const auto n = static_cast<int64_t>(order.size());
  const std::vector<int> pending = PendingSlots();
  // The walk was a whole pass ahead of where it is now said to be: what was requested stays right.
  const int64_t first =
      pending.empty() ? next_fill_ : entries_[static_cast<size_t>(pending[0])].position;
  const bool goes_on = same && first == n && !forget_;
  next_fill_ = 0;
  bool matches = true;
  for (int slot : pending) {
    Entry& e = entries_[static_cast<size_t>(slot)];
    matches =
        matches && next_fill_ < 2 * n && e.group == order[static_cast<size_t>(next_fill_ % n)];
    if (matches) {
      e.position = next_fill_++;
    } else {
      e.dropped = true;
      recorder_.Dropped(groups_[static_cast<size_t>(e.group)].ring_bytes);
    }
  }
  if (goes_on) {
    requested_.position -= n;
  } else {
    forget_ = true;
  }
  order_.assign(order.begin(), order.end());
  next_acquire_ = 0;
}

int WeightStream::ReadySlot() const {
  for (int slot : ring_) {
    const Entry& e = entries_[static_cast<size_t>(slot)];
    if (e.dropped || e.position != next_acquire_) continue;
    if (e.state == State::kQueued) return slot;
  }
  return -1;
}

absl::StatusOr<WeightLease> WeightStream::Acquire(int group, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mu_);
  if (!pass_open_ || next_acquire_ >= static_cast<int64_t>(order_.size()) ||
      GroupAt(next_acquire_) != group) {
    return absl::FailedPreconditionError(absl::StrCat(
        "streamed group ", group, " is not what the pass's order has at place ", next_acquire_));
  }
  int slot = -1;
  while (!cancelled_ && (slot = ReadySlot()) < 0) {
    if (!error_.ok()) return error_;
    MILLRACE_RETURN_IF_ERROR(WaitForProgress(deadline, group));
  }
  if (cancelled_) return absl::CancelledError("the streaming of weights was stopped");
  if (!error_.ok() && error_is_final_) return error_;
  Entry& entry = entries_[static_cast<size_t>(slot)];
  entry.state = State::kLeased;
  ++next_acquire_;
  WeightLease lease;
  lease.stream_ = this;
  lease.group_ = group;
  lease.slot_ = slot;
  lease.offset_ = entry.offset;
  if (!threaded()) PumpLocked();
  return lease;
}

absl::Status WeightStream::WaitForProgress(absl::Time deadline, int group) {
  // Only the caller's own leases are in the way, and it waits here.
  if (no_room_ && filling_ < 0 && next_fill_ == next_acquire_) {
    const StreamGroup& g = groups_[static_cast<size_t>(group)];
    return absl::ResourceExhaustedError(
        absl::StrCat(g.name, ": no room for its ", FormatBytes(g.ring_bytes), " in the ring of ",
                     FormatBytes(arena_.size()), " beside the leases that are held"));
  }
  if (absl::Now() >= deadline) {
    return absl::DeadlineExceededError(absl::StrCat(
        "streaming ", groups_[static_cast<size_t>(group)].name, ": not queued in time"));
  }
  if (threaded()) {
    progress_.WaitWithDeadline(&mu_, deadline);
    return absl::OkStatus();
  }
  const Step step = TakeStep();
  // Nothing to do, yet a group is missing: only an error explains that.
  MILLRACE_CHECK(step != Step::kNothing || !error_.ok() || cancelled_);
  return step == Step::kWaits ? device_->WaitForCopy(absl::Seconds(1)) : absl::OkStatus();
}

absl::Status WeightStream::ReleaseSlot(int slot) {
  const absl::Status recorded = device_->RecordRelease(slot);
  absl::MutexLock lock(&mu_);
  if (!recorded.ok()) Fail(recorded, true);
  Entry& entry = entries_[static_cast<size_t>(slot)];
  MILLRACE_CHECK(entry.state == State::kLeased);
  entry.state = State::kReleased;
  no_room_ = false;
  work_.Signal();
  if (!threaded()) PumpLocked();
  return recorded;
}

StreamStats WeightStream::stats() const {
  absl::MutexLock lock(&mu_);
  return recorder_.stats();
}

std::vector<CopyEvent> WeightStream::TakeEvents() {
  absl::MutexLock lock(&mu_);
  return recorder_.TakeEvents();
}

}  // namespace millrace
