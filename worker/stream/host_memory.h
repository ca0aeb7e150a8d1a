// Host memory that a device copies from: mapped pages brought in and locked where they lie, and
// anonymous memory for copies.
#ifndef MILLRACE_WORKER_STREAM_HOST_MEMORY_H_
#define MILLRACE_WORKER_STREAM_HOST_MEMORY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/bytes.h"

namespace millrace {

using HostBytes = absl::Span<const std::byte>;

// Done and all bytes; calls come one at a time, from any thread.
using HostProgress = std::function<void(Bytes done, Bytes all)>;

// Brings the ranges' pages into memory with `threads` threads. DataLoss where one cannot be read.
absl::Status FaultIn(absl::Span<const HostBytes> ranges, int threads, const HostProgress& progress);

// Ranges of whole pages, sorted, none touching another, that cover `ranges`.
std::vector<HostBytes> WholePages(absl::Span<const HostBytes> ranges);

enum class PageAccess { kReadOnly, kReadWrite };
// Locks whole pages for a device's copies until the result dies. Any error means: not possible for
// these pages.
using PageLocker =
    std::function<absl::StatusOr<std::shared_ptr<void>>(HostBytes pages, PageAccess access)>;
// For CUDA device `device` (and all others). Unimplemented for everything in a build without CUDA.
PageLocker CudaPageLocker(int device);
// Does nothing: pages are only to be in memory.
PageLocker NoPageLocker();

// Zeroed pages of our own, huge ones where the system gives them. Move-only.
class AnonymousMemory {
 public:
  // ResourceExhausted.
  static absl::StatusOr<AnonymousMemory> Create(Bytes size);
  AnonymousMemory() = default;
  std::byte* data() const { return data_.get(); }
  HostBytes bytes() const { return {data_.get(), data_.get_deleter().size}; }

 private:
  struct Unmap {
    Unmap() : size(0) {}
    explicit Unmap(size_t bytes) : size(bytes) {}
    void operator()(std::byte* p) const;
    size_t size;
  };
  std::unique_ptr<std::byte, Unmap> data_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_STREAM_HOST_MEMORY_H_
