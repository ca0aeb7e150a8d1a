#include "worker/stream/disk_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status_macros.h"

namespace millrace {
namespace {

// Direct reads begin and end at multiples of this, in the file and in memory.
constexpr int64_t kAlign = 4096;

int64_t BufferBytes(const DiskReaderOptions& options) {
  // A read of any alignment, grown at both ends.
  return (options.max_read.count() + kAlign - 1) / kAlign * kAlign + 2 * kAlign;
}

// Reads [offset, offset + want) or more, up to `room`. An errno, 0, or -1 for a file that ends
// early.
int ReadFully(int fd, std::byte* to, int64_t offset, int64_t want, int64_t room) {
  int64_t got = 0;
  while (got < want) {
    const ssize_t n = pread(fd, to + got, static_cast<size_t>(room - got), offset + got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (n == 0) return -1;
    got += n;
    // A direct read that stops between two multiples is at the file's end.
    if (got < want && got % kAlign != 0) return -1;
  }
  return 0;
}

}  // namespace

Bytes DiskReader::MemoryFor(const DiskReaderOptions& options) {
  return Bytes(BufferBytes(options)) * options.buffers;
}

DiskReader::DiskReader(const DiskReaderOptions& options, AnonymousMemory memory)
    : options_(options),
      memory_(std::move(memory)),
      buffers_(static_cast<size_t>(options.buffers)) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    buffers_[i].memory = memory_.data() + static_cast<int64_t>(i) * BufferBytes(options);
  }
}

absl::StatusOr<std::unique_ptr<DiskReader>> DiskReader::Create(
    const DiskReaderOptions& options, const std::vector<std::string>& paths,
    const PageLocker& lock) {
  MILLRACE_CHECK(options.readers > 0 && options.buffers > 0 && options.max_read > Bytes(0));
  MILLRACE_ASSIGN_OR_RETURN(AnonymousMemory memory, AnonymousMemory::Create(MemoryFor(options)));
  auto reader = std::unique_ptr<DiskReader>(new DiskReader(options, std::move(memory)));
  auto locked = lock(reader->memory_.bytes(), PageAccess::kReadWrite);
  if (locked.ok()) reader->lock_ = *std::move(locked);
  MILLRACE_RETURN_IF_ERROR(reader->Open(paths));
  for (int i = 0; i < options.readers; ++i) {
    reader->threads_.emplace_back([r = reader.get()] { r->Run(); });
  }
  return reader;
}

absl::Status DiskReader::Open(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    File file;
    file.path = path;
    file.buffered = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const int error = errno;
    files_.push_back(file);
    if (file.buffered < 0) {
      const std::string message = absl::StrCat(path, ": cannot open: ", std::strerror(error));
      return error == ENOENT ? absl::NotFoundError(message) : absl::DataLossError(message);
    }
    if (options_.direct) files_.back().direct = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  }
  return absl::OkStatus();
}

DiskReader::~DiskReader() {
  Cancel();
  for (std::thread& t : threads_) t.join();
  for (const File& f : files_) {
    if (f.buffered >= 0) close(f.buffered);
    if (f.direct >= 0) close(f.direct);
  }
}

void DiskReader::Cancel() {
  absl::MutexLock lock(&mu_);
  cancelled_ = true;
  work_.SignalAll();
  done_.SignalAll();
}

bool DiskReader::Request(const DiskRange& range) {
  MILLRACE_CHECK(range.size <= options_.max_read);
  absl::MutexLock lock(&mu_);
  for (Buffer& b : buffers_) {
    if (b.state != State::kFree) continue;
    b.state = State::kWaiting;
    b.forgotten = false;
    b.range = range;
    requested_.push_back(&b);
    work_.Signal();
    return true;
  }
  return false;
}

absl::StatusOr<const std::byte*> DiskReader::Take(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mu_);
  MILLRACE_CHECK(!requested_.empty());
  Buffer* buffer = requested_.front();
  while (!cancelled_ && buffer->state != State::kRead) {
    if (done_.WaitWithDeadline(&mu_, deadline) && buffer->state != State::kRead) {
      return absl::DeadlineExceededError(
          absl::StrCat(files_[static_cast<size_t>(buffer->range.file)].path,
                       ": a read took more than ", absl::FormatDuration(timeout)));
    }
  }
  if (cancelled_) return absl::CancelledError("reading of weights was stopped");
  requested_.pop_front();
  if (!buffer->status.ok()) {
    buffer->state = State::kFree;
    return buffer->status;
  }
  buffer->state = State::kTaken;
  taken_.push_back(buffer);
  return buffer->data;
}

void DiskReader::GiveBack() {
  absl::MutexLock lock(&mu_);
  MILLRACE_CHECK(!taken_.empty());
  taken_.front()->state = State::kFree;
  taken_.pop_front();
}

void DiskReader::Forget() {
  absl::MutexLock lock(&mu_);
  for (Buffer* b : requested_) {
    if (b->state == State::kReading) {
      b->forgotten = true;  // free when the read is over
    } else {
      b->state = State::kFree;
    }
  }
  requested_.clear();
}

DiskReader::Buffer* DiskReader::NextToRead() {
  for (Buffer* b : requested_) {
    if (b->state == State::kWaiting) return b;
  }
  return nullptr;
}

void DiskReader::Run() {
  mu_.Lock();
  while (!cancelled_) {
    Buffer* buffer = NextToRead();
    if (buffer == nullptr) {
      work_.WaitWithTimeout(&mu_, absl::Seconds(1));
      continue;
    }
    buffer->state = State::kReading;
    const DiskRange range = buffer->range;
    std::byte* memory = buffer->memory;
    mu_.Unlock();
    const absl::StatusOr<const std::byte*> data = Read(range, memory);
    mu_.Lock();
    buffer->status = data.status();
    buffer->data = data.ok() ? *data : nullptr;
    buffer->state = buffer->forgotten ? State::kFree : State::kRead;
    done_.SignalAll();
  }
  mu_.Unlock();
}

absl::StatusOr<const std::byte*> DiskReader::Read(const DiskRange& range, std::byte* memory) {
  const File& file = files_[static_cast<size_t>(range.file)];
  const int64_t begin = range.offset.count() / kAlign * kAlign;
  const int64_t skip = range.offset.count() - begin;
  const int64_t want = skip + range.size.count();
  const int64_t room = (want + kAlign - 1) / kAlign * kAlign;
  int error = EINVAL;
  if (file.direct >= 0) error = ReadFully(file.direct, memory, begin, want, room);
  // Some file systems take the flag and refuse the read.
  if (error == EINVAL) error = ReadFully(file.buffered, memory, begin, want, want);
  if (error == 0) return memory + skip;
  return absl::DataLossError(
      absl::StrCat(file.path, ": reading ", range.size.count(), " bytes at ", range.offset.count(),
                   ": ", error < 0 ? "the file is shorter" : std::strerror(error)));
}

}  // namespace millrace
