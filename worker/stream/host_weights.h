// HostWeights: the weights that a stage keeps in host memory or on disk, and how a device gets at
// them.
//
// In place, where that works: the model file's mapped pages are brought in and locked, nothing is
// copied, and the CPU's kernels read the same pages. Where pages of a file cannot be locked (shared
// memory, some network file systems, old drivers) they are copied into locked memory. What does not
// fit the memory budget stays on disk and is read again whenever it is streamed.
#ifndef MILLRACE_WORKER_STREAM_HOST_WEIGHTS_H_
#define MILLRACE_WORKER_STREAM_HOST_WEIGHTS_H_

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/backend/host_tensor.h"
#include "worker/stream/chunk_source.h"
#include "worker/stream/disk_reader.h"
#include "worker/stream/host_memory.h"

namespace millrace {

// A tensor, and where its bytes are on disk. Without a path (the embedded model) they cannot be
// left there.
struct HostWeight {
  HostTensor tensor;  // the bytes are those of the mapped file; they outlive HostWeights
  std::string path;
  Bytes offset;
  bool on_disk = false;  // not to be held in memory in any case
};

struct HostWeightsOptions {
  PageLocker lock = NoPageLocker();
  int threads = 4;      // bring pages in and copy
  Bytes memory_budget;  // for everything here; 0 = no limit
  // What passes the budget: refused, or left on disk, last tensors first.
  enum class Beyond { kRefuse, kDisk } beyond = Beyond::kRefuse;
  DiskReaderOptions disk;  // max_read: at least the largest chunk
  HostProgress progress;
};

// What host memory is used for.
struct HostUse {
  Bytes in_place;          // whole pages of mapped files, locked
  Bytes copied;            // locked copies
  Bytes disk;              // not in memory
  Bytes disk_buffers;      // locked buffers for reading it
  std::string why_copied;  // the first reason, empty where nothing was copied

  Bytes memory() const { return in_place + copied + disk_buffers; }
};

// A ChunkSource for chunks of its tensors. use and BytesOf: any thread. Pages are locked once in a
// process: the tensors of two HostWeights that live at a time should not share a page, or the
// second one copies the tensors around it.
class HostWeights : public ChunkSource {
 public:
  // Brings in, locks, copies: seconds per 10 GB. ResourceExhausted names the budget and what is
  // needed, DataLoss what cannot be read, FailedPrecondition a tensor that is to stay on a disk it
  // is not on. Duplicate tensors count once.
  static absl::StatusOr<std::unique_ptr<HostWeights>> Create(const HostWeightsOptions& options,
                                                             std::vector<HostWeight> weights);

  const HostUse& use() const { return use_; }
  // Where the CPU's kernels read a tensor: its copy or its mapped pages.
  HostBytes BytesOf(HostBytes tensor) const;

  bool Request(const StreamChunk& chunk) override;
  absl::StatusOr<HostChunk> Take(const StreamChunk& chunk, absl::Duration timeout) override;
  void Sent(int64_t copy) override;
  void Copied(int64_t copies) override;
  void Forget() override;
  void Cancel() override;

 private:
  enum class Home : uint8_t { kInPlace, kCopied, kDisk };
  struct Place {
    HostBytes bytes;  // as mapped: what chunks are looked up by
    Home home = Home::kInPlace;
    const std::byte* copy = nullptr;
    DiskRange disk;  // of the whole tensor
    std::string name;
  };

  explicit HostWeights(const HostWeightsOptions& options) : options_(options) {}
  absl::Status AddPlaces(std::vector<HostWeight> weights);
  absl::Status ChooseHomes();
  absl::Status BringIn();
  absl::Status LockInPlace();
  absl::Status CopyPlaces(HostBytes pages);
  Bytes MemoryNeeded() const;
  std::vector<HostBytes> BytesAt(Home home) const;
  const Place* Find(HostBytes bytes) const;  // null: not ours

  const HostWeightsOptions options_;
  HostUse use_;
  std::vector<Place> places_;  // as given until homes are chosen, then by address
  std::vector<std::string> paths_;
  std::vector<AnonymousMemory> copies_;
  std::vector<std::shared_ptr<void>> locks_;  // die before what they lock
  std::unique_ptr<DiskReader> reader_;        // null: nothing is on disk

  // Requests not taken, and copies under way whose chunks came from the reader.
  std::deque<const std::byte*> requested_;
  bool taken_from_disk_ = false;
  std::deque<int64_t> sent_from_disk_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_HOST_WEIGHTS_H_
