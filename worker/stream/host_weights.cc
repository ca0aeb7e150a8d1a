#include "worker/stream/host_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

constexpr size_t kCopyPiece = size_t{32} << 20;  // bytes that a thread copies at a time

Bytes SizeOf(HostBytes bytes) { return Bytes(static_cast<int64_t>(bytes.size())); }

bool Covers(HostBytes outer, HostBytes inner) {
  return inner.data() >= outer.data() && inner.data() + inner.size() <= outer.data() + outer.size();
}

void CopyWithThreads(HostBytes from, std::byte* to, int threads) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t at; (at = next.fetch_add(kCopyPiece)) < from.size();) {
      std::memcpy(to + at, from.data() + at, std::min(kCopyPiece, from.size() - at));
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& t : helpers) t.join();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostWeights>> HostWeights::Create(const HostWeightsOptions& options,
                                                                 std::vector<HostWeight> weights) {
  auto made = std::unique_ptr<HostWeights>(new HostWeights(options));
  MILLRACE_RETURN_IF_ERROR(made->AddPlaces(std::move(weights)));
  MILLRACE_RETURN_IF_ERROR(made->ChooseHomes());
  MILLRACE_RETURN_IF_ERROR(made->BringIn());
  MILLRACE_RETURN_IF_ERROR(made->LockInPlace());
  return made;
}

absl::Status HostWeights::AddPlaces(std::vector<HostWeight> weights) {
  std::set<const std::byte*> seen;
  for (HostWeight& w : weights) {
    if (w.tensor.bytes.empty() || !seen.insert(w.tensor.bytes.data()).second) continue;
    Place place;
    place.bytes = w.tensor.bytes;
    place.name = w.tensor.spec->name;
    place.disk = {-1, w.offset, SizeOf(place.bytes)};
    if (!w.path.empty()) {
      const auto known = std::find(paths_.begin(), paths_.end(), w.path);
      place.disk.file = static_cast<int>(known - paths_.begin());
      if (known == paths_.end()) paths_.push_back(w.path);
    }
    if (w.on_disk && place.disk.file < 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "tensor ", place.name, " is to stay on disk, but the model is embedded in the program"));
    }
    if (w.on_disk) place.home = Home::kDisk;
    places_.push_back(std::move(place));
  }
  return absl::OkStatus();
}

std::vector<HostBytes> HostWeights::BytesAt(Home home) const {
  std::vector<HostBytes> bytes;
  for (const Place& p : places_) {
    if (p.home == home) bytes.push_back(p.bytes);
  }
  return bytes;
}

Bytes HostWeights::MemoryNeeded() const {
  Bytes needed;
  for (const HostBytes& pages : WholePages(BytesAt(Home::kInPlace))) needed += SizeOf(pages);
  const bool disk = std::any_of(places_.begin(), places_.end(),
                                [](const Place& p) { return p.home == Home::kDisk; });
  return needed + (disk ? DiskReader::MemoryFor(options_.disk) : Bytes(0));
}

absl::Status HostWeights::ChooseHomes() {
  const Bytes budget = options_.memory_budget;
  if (budget > Bytes(0)) {
    const Bytes all = MemoryNeeded();
    if (all > budget && options_.beyond == HostWeightsOptions::Beyond::kDisk) {
      for (size_t i = places_.size(); i-- > 0 && MemoryNeeded() > budget;) {
        if (places_[i].disk.file >= 0) places_[i].home = Home::kDisk;
      }
    }
    const Bytes needed = MemoryNeeded();
    if (needed > budget) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "weights in host memory take ", FormatBytes(needed), ", the budget for them is ",
          FormatBytes(budget), all > needed ? " (with all on disk that can be)" : ""));
    }
  }
  const std::vector<HostBytes> disk = BytesAt(Home::kDisk);
  for (const HostBytes& b : disk) use_.disk += SizeOf(b);
  if (!disk.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(reader_, DiskReader::Create(options_.disk, paths_, options_.lock));
    use_.disk_buffers = DiskReader::MemoryFor(options_.disk);
  }
  std::sort(places_.begin(), places_.end(),
            [](const Place& a, const Place& b) { return a.bytes.data() < b.bytes.data(); });
  return absl::OkStatus();
}

absl::Status HostWeights::BringIn() {
  return FaultIn(BytesAt(Home::kInPlace), options_.threads, options_.progress);
}

absl::Status HostWeights::LockInPlace() {
  for (const HostBytes& pages : WholePages(BytesAt(Home::kInPlace))) {
    auto locked = options_.lock(pages, PageAccess::kReadOnly);
    if (locked.ok()) {
      locks_.push_back(*std::move(locked));
      use_.in_place += SizeOf(pages);
      continue;
    }
    if (use_.why_copied.empty()) use_.why_copied = std::string(locked.status().message());
    MILLRACE_RETURN_IF_ERROR(CopyPlaces(pages));
  }
  return absl::OkStatus();
}

// Takes as much memory as the pages themselves would have been counted for.
absl::Status HostWeights::CopyPlaces(HostBytes pages) {
  MILLRACE_ASSIGN_OR_RETURN(AnonymousMemory memory, AnonymousMemory::Create(SizeOf(pages)));
  for (Place& p : places_) {
    if (p.home != Home::kInPlace || !Covers(pages, p.bytes)) continue;
    std::byte* copy = memory.data() + (p.bytes.data() - pages.data());
    CopyWithThreads(p.bytes, copy, options_.threads);
    p.home = Home::kCopied;
    p.copy = copy;
  }
  auto locked = options_.lock(memory.bytes(), PageAccess::kReadWrite);
  if (!locked.ok()) return Annotate(locked.status(), "locking a copy of weights in host memory");
  use_.copied += SizeOf(memory.bytes());
  copies_.push_back(std::move(memory));
  locks_.push_back(*std::move(locked));
  return absl::OkStatus();
}

const HostWeights::Place* HostWeights::Find(HostBytes bytes) const {
  auto after =
      std::upper_bound(places_.begin(), places_.end(), bytes.data(),
                       [](const std::byte* data, const Place& p) { return data < p.bytes.data(); });
  if (after == places_.begin()) return nullptr;
  const Place& place = *--after;
  return Covers(place.bytes, bytes) ? &place : nullptr;
}

HostBytes HostWeights::BytesOf(HostBytes tensor) const {
  const Place* place = Find(tensor);
  if (place == nullptr || place->copy == nullptr) return tensor;
  return {place->copy + (tensor.data() - place->bytes.data()), tensor.size()};
}

bool HostWeights::Request(const StreamChunk& chunk) {
  const Place* place = Find(chunk.bytes);
  if (place != nullptr && place->home == Home::kDisk) {
    MILLRACE_CHECK(chunk.row_stride == Bytes(0));  // what is on disk streams whole
    const Bytes skip(chunk.bytes.data() - place->bytes.data());
    if (!reader_->Request({place->disk.file, place->disk.offset + skip, SizeOf(chunk.bytes)})) {
      return false;
    }
  }
  requested_.push_back(chunk.bytes.data());
  return true;
}

absl::StatusOr<HostChunk> HostWeights::Take(const StreamChunk& chunk, absl::Duration timeout) {
  MILLRACE_CHECK(!requested_.empty() && requested_.front() == chunk.bytes.data());
  requested_.pop_front();
  const Place* place = Find(chunk.bytes);
  if (place == nullptr)
    return absl::InternalError("a chunk of a tensor that is not in host memory");
  taken_from_disk_ = place->home == Home::kDisk;
  if (!taken_from_disk_) return HostChunk{BytesOf(chunk.bytes).data(), absl::ZeroDuration()};
  const absl::Time begin = absl::Now();
  MILLRACE_ASSIGN_OR_RETURN(const std::byte* data, reader_->Take(timeout));
  return HostChunk{data, absl::Now() - begin};
}

void HostWeights::Sent(int64_t copy) {
  if (std::exchange(taken_from_disk_, false)) sent_from_disk_.push_back(copy);
}

void HostWeights::Copied(int64_t copies) {
  while (!sent_from_disk_.empty() && sent_from_disk_.front() < copies) {
    sent_from_disk_.pop_front();
    reader_->GiveBack();
  }
}

void HostWeights::Forget() {
  requested_.clear();
  if (reader_ != nullptr) reader_->Forget();
}

void HostWeights::Cancel() {
  if (reader_ != nullptr) reader_->Cancel();
}

}  // namespace millrace
