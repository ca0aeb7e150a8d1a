#include "worker/stream/sim_stream_device.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "proto/status_macros.h"

namespace millrace {
namespace {

// What ring bytes are while they are being written.
constexpr std::byte kTorn{0xee};
// Nothing is instant: an end is later than its begin.
constexpr absl::Duration kLeast = absl::Nanoseconds(1);

absl::Duration TimeFor(size_t bytes, Bandwidth rate) {
  return std::max(kLeast, Bytes(static_cast<int64_t>(bytes)) / rate);
}

// The chunk's rows one behind the other, as a link leaves them.
void Pack(const StreamChunk& chunk, const std::byte* from, std::byte* to) {
  if (chunk.row_stride == Bytes(0)) {
    std::memcpy(to, from, chunk.bytes.size());
    return;
  }
  const auto row = static_cast<size_t>(chunk.row_bytes.count());
  for (int64_t r = 0; r < chunk.rows; ++r) {
    std::memcpy(to + static_cast<size_t>(r) * row, from + r * chunk.row_stride.count(), row);
  }
}

}  // namespace

SimStreamDevice::SimStreamDevice(const SimStreamSpec& spec)
    : spec_(spec),
      now_(absl::UnixEpoch()),
      ring_(static_cast<size_t>(spec.ring.count()), kTorn),
      link_free_(now_),
      place_free_(now_),
      compute_free_(now_),
      write_after_(now_),
      held_until_(now_),
      stage_free_(static_cast<size_t>(spec.stages), now_),
      arrival_(static_cast<size_t>(spec.slots), now_),
      release_(static_cast<size_t>(spec.slots), now_) {}

absl::Time SimStreamDevice::Now() const {
  absl::MutexLock lock(&mu_);
  return now_;
}

void SimStreamDevice::At(absl::Time time, bool begin, std::function<void()> what) {
  events_.emplace(When{time, begin ? 1 : 0, queued_events_++}, std::move(what));
}

void SimStreamDevice::Advance(absl::Time time) {
  while (!events_.empty() && std::get<0>(events_.begin()->first) <= time) {
    const auto event = events_.extract(events_.begin());
    now_ = std::max(now_, std::get<0>(event.key()));
    event.mapped()();
  }
  now_ = std::max(now_, time);
}

absl::Status SimStreamDevice::WriteAfterRelease(int slot) {
  absl::MutexLock lock(&mu_);
  write_after_ = std::max(write_after_, release_[static_cast<size_t>(slot)]);
  return failure_;
}

absl::Status SimStreamDevice::Copy(const StreamChunk& chunk, const std::byte* from,
                                   Bytes ring_offset) {
  absl::MutexLock lock(&mu_);
  MILLRACE_RETURN_IF_ERROR(failure_);
  const auto size = static_cast<size_t>(chunk.size().count());
  const size_t at = static_cast<size_t>((ring_offset + chunk.offset).count());
  MILLRACE_CHECK(at + size <= ring_.size());
  absl::Time& stage = stage_free_[next_stage_++ % stage_free_.size()];
  CopySpan span;
  span.begin = std::max({now_, link_free_, stage, held_until_});
  span.end = span.begin + TimeFor(size, spec_.link);
  if (held_until_ > std::max({now_, link_free_, stage})) span.waited_for = StreamStall::kSource;
  link_free_ = span.end;
  copies_.push_back(span);
  const absl::Time begin = std::max({place_free_, span.end, write_after_});
  stage = place_free_ = begin + TimeFor(size, spec_.place);
  auto staged = std::make_shared<std::vector<std::byte>>(size);
  // Events run in Advance, under the lock.
  At(span.end, false, [staged, from, chunk] { Pack(chunk, from, staged->data()); });
  std::byte* to = ring_.data() + at;
  At(begin, true, [to, size] { std::memset(to, static_cast<int>(kTorn), size); });
  At(place_free_, false, [staged, to, size] { std::memcpy(to, staged->data(), size); });
  return absl::OkStatus();
}

absl::Status SimStreamDevice::RecordArrival(int slot) {
  absl::MutexLock lock(&mu_);
  arrival_[static_cast<size_t>(slot)] = place_free_;
  return failure_;
}

absl::StatusOr<std::vector<CopySpan>> SimStreamDevice::Finished() {
  absl::MutexLock lock(&mu_);
  MILLRACE_RETURN_IF_ERROR(failure_);
  std::vector<CopySpan> done;
  while (!copies_.empty() && copies_.front().end <= now_) {
    done.push_back(copies_.front());
    copies_.pop_front();
  }
  return done;
}

absl::Status SimStreamDevice::WaitForCopy(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  if (!copies_.empty()) Advance(std::min(copies_.front().end, now_ + timeout));
  return failure_;
}

absl::Status SimStreamDevice::Quiesce(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const bool late = place_free_ > now_ + timeout;
  Advance(std::min(place_free_, now_ + timeout));
  return late ? absl::DeadlineExceededError("simulated copies were not done") : absl::OkStatus();
}

absl::Status SimStreamDevice::ComputeAfterArrival(int slot) {
  absl::MutexLock lock(&mu_);
  compute_free_ = std::max(compute_free_, arrival_[static_cast<size_t>(slot)]);
  return absl::OkStatus();
}

absl::Status SimStreamDevice::RecordRelease(int slot) {
  absl::MutexLock lock(&mu_);
  release_[static_cast<size_t>(slot)] = compute_free_;
  return absl::OkStatus();
}

void SimStreamDevice::HoldNextCopy(absl::Time time) {
  absl::MutexLock lock(&mu_);
  held_until_ = std::max(held_until_, time);
}

void SimStreamDevice::Compute(absl::Duration duration, Work begin, Work end) {
  absl::MutexLock lock(&mu_);
  MILLRACE_CHECK(begin == nullptr || duration > absl::ZeroDuration());
  const auto on_ring = [this](Work work) {
    // Events run in Advance, under the lock.
    return [this, work = std::move(work)]()
               ABSL_NO_THREAD_SAFETY_ANALYSIS { work(absl::MakeSpan(ring_)); };
  };
  const absl::Time from = std::max(now_, compute_free_);
  compute_free_ = from + duration;
  if (begin != nullptr) At(from, true, on_ring(std::move(begin)));
  if (end != nullptr) At(compute_free_, false, on_ring(std::move(end)));
}

void SimStreamDevice::Compute(absl::Duration duration, Bytes ring_offset,
                              absl::Span<const std::byte> expected) {
  Work check;
  if (!expected.empty()) {
    check = [this, ring_offset, expected](absl::Span<std::byte> ring) {
      const std::byte* found = ring.data() + ring_offset.count();
      if (std::memcmp(found, expected.data(), expected.size()) != 0) CountWrongRead();
    };
  }
  Compute(std::max(kLeast, duration), check, check);
}

absl::Time SimStreamDevice::compute_end() const {
  absl::MutexLock lock(&mu_);
  return compute_free_;
}

void SimStreamDevice::AdvanceTo(absl::Time time) {
  absl::MutexLock lock(&mu_);
  Advance(time);
}

absl::Time SimStreamDevice::next_copy_end() const {
  absl::MutexLock lock(&mu_);
  for (const CopySpan& span : copies_) {
    if (span.end > now_) return span.end;
  }
  return absl::InfiniteFuture();
}

void SimStreamDevice::FailCopies(absl::Status status) {
  absl::MutexLock lock(&mu_);
  failure_ = std::move(status);
}

bool SimChunkSource::Request(const StreamChunk& chunk) {
  requested_.push_back(chunk.bytes.data());
  return true;
}

absl::StatusOr<HostChunk> SimChunkSource::Take(const StreamChunk& chunk, absl::Duration timeout) {
  MILLRACE_CHECK(!requested_.empty() && requested_.front() == chunk.bytes.data());
  requested_.pop_front();
  if (fail_after_ >= 0 && fail_after_-- == 0) return absl::DataLossError("simulated disk error");
  if (rate_.bytes_per_second() > 0) {
    disk_free_ = std::max(disk_free_, device_->Now()) +
                 chunk.size() / rate_;
    device_->HoldNextCopy(disk_free_);
  }
  return HostChunk{chunk.bytes.data(), absl::ZeroDuration()};
}

}  // namespace millrace
