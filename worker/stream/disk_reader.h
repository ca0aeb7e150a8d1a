// DiskReader: weights that are larger than the memory they may take, read from their files again
// and again through a small ring of buffers.
#ifndef MILLRACE_WORKER_STREAM_DISK_READER_H_
#define MILLRACE_WORKER_STREAM_DISK_READER_H_

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/stream_layout.h"
#include "worker/stream/host_memory.h"

namespace millrace {

struct DiskReaderOptions {
  int readers = 4;  // threads
  int buffers = kDiskBuffers;  // each for a read of max_read
  Bytes max_read = kStreamChunk;
  bool direct = true;  // past the page cache where the file system can
};

// Bytes of a file.
struct DiskRange {
  int file = 0;  // index into the paths
  Bytes offset;
  Bytes size;
};

// Reads are requested, then taken in the same order, then given back. One thread calls all but
// Cancel.
class DiskReader {
 public:
  // NotFound and the like name the path. Buffers that cannot be locked are used as they are:
  // slower.
  static absl::StatusOr<std::unique_ptr<DiskReader>> Create(const DiskReaderOptions& options,
                                                            const std::vector<std::string>& paths,
                                                            const PageLocker& lock);
  ~DiskReader();
  DiskReader(const DiskReader&) = delete;
  DiskReader& operator=(const DiskReader&) = delete;

  // What the buffers take.
  static Bytes MemoryFor(const DiskReaderOptions& options);

  // False where all buffers are in use.
  bool Request(const DiskRange& range);
  // The oldest request's bytes, in a buffer that stays as it is until GiveBack. DataLoss with the
  // path named, DeadlineExceeded, Cancelled.
  absl::StatusOr<const std::byte*> Take(absl::Duration timeout);
  // The buffer taken longest ago.
  void GiveBack();
  // Requests not taken.
  void Forget();
  void Cancel();

 private:
  struct File {
    std::string path;
    int buffered = -1, direct = -1;  // descriptors; direct -1: not possible
  };
  enum class State : uint8_t { kFree, kWaiting, kReading, kRead, kTaken };
  struct Buffer {
    std::byte* memory = nullptr;
    State state = State::kFree;
    bool forgotten = false;
    DiskRange range;
    const std::byte* data = nullptr;
    absl::Status status;
  };

  DiskReader(const DiskReaderOptions& options, AnonymousMemory memory);
  absl::Status Open(const std::vector<std::string>& paths);
  void Run();
  Buffer* NextToRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<const std::byte*> Read(const DiskRange& range, std::byte* memory);

  const DiskReaderOptions options_;
  const AnonymousMemory memory_;
  std::shared_ptr<void> lock_;
  std::vector<File> files_;

  absl::Mutex mu_;
  absl::CondVar work_, done_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<Buffer> buffers_ ABSL_GUARDED_BY(mu_);
  std::deque<Buffer*> requested_ ABSL_GUARDED_BY(mu_), taken_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_DISK_READER_H_
