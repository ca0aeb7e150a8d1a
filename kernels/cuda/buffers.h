// Owners of device memory, pinned host memory, and of the registration of memory someone else owns.
// All move-only; a moved-from owner is empty. Zero bytes make an empty owner with a null pointer.
// Work queued on a buffer must be done before the buffer dies: nothing here waits for it.
#ifndef MILLRACE_KERNELS_CUDA_BUFFERS_H_
#define MILLRACE_KERNELS_CUDA_BUFFERS_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"
#include "proto/bytes.h"

namespace millrace::cuda {

class MemoryAccount;  // kernels/cuda/device_allocator.h

class DeviceBuffer {
 public:
  // ResourceExhausted where the device is short of memory.
  static absl::StatusOr<DeviceBuffer> Create(int device, Bytes size);
  void* data() const { return data_.get(); }
  Bytes size() const { return data_ ? size_ : Bytes(0); }
  int device() const { return device_; }

 private:
  friend class DeviceAllocator;
  struct Free {
    void operator()(void* p) const;
    std::shared_ptr<MemoryAccount> account;  // null: the memory is counted nowhere
    Bytes counted;
  };
  // Gives `counted` back to `account` when the memory is freed.
  void CountIn(std::shared_ptr<MemoryAccount> account, Bytes counted);
  DeviceBuffer(void* p, Bytes size, int device) : data_(p), size_(size), device_(device) {}
  std::unique_ptr<void, Free> data_;
  Bytes size_;
  int device_;
};

// Page-locked host memory that every device may copy from and to.
class PinnedBuffer {
 public:
  static absl::StatusOr<PinnedBuffer> Create(Bytes size);
  void* data() const { return data_.get(); }
  Bytes size() const { return data_ ? size_ : Bytes(0); }

 private:
  struct Free {
    void operator()(void* p) const { (void)cudaFreeHost(p); }
  };
  PinnedBuffer(void* p, Bytes size) : data_(p), size_(size) {}
  std::unique_ptr<void, Free> data_;
  Bytes size_;
};

// Page-locks [data, data + size) of the caller, e.g. a mapped model file, until it dies. The memory
// outlives the registration. Ranges of two registrations must not share a page.
class HostRegistration {
 public:
  enum class Access { kReadWrite, kReadOnly };  // kReadOnly: the pages are mapped without write
  // Unimplemented where `device` cannot register read-only memory: copy through a PinnedBuffer.
  static absl::StatusOr<HostRegistration> Create(int device, const void* data, Bytes size,
                                                 Access access);
  const void* data() const { return data_.get(); }
  Bytes size() const { return data_ ? size_ : Bytes(0); }

 private:
  struct Unregister {
    void operator()(void* p) const { (void)cudaHostUnregister(p); }
  };
  HostRegistration(void* p, Bytes size) : data_(p), size_(size) {}
  std::unique_ptr<void, Unregister> data_;
  Bytes size_;
};

// Queues a copy between any two of host and device memory. Asynchronous only from and to pinned or
// registered host memory.
absl::Status CopyAsync(void* to, const void* from, Bytes size, StreamView stream);

// `count` rows of `bytes` each, `stride` apart.
struct SpacedRows {
  int64_t count = 0;
  Bytes bytes, stride;
};
// The same of rows from `from` on; in `to` they lie without gaps.
absl::Status CopyRowsAsync(void* to, const void* from, const SpacedRows& rows, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_BUFFERS_H_
