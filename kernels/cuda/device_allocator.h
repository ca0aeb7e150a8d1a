// DeviceAllocator: device memory within a budget.
#ifndef MILLRACE_KERNELS_CUDA_DEVICE_ALLOCATOR_H_
#define MILLRACE_KERNELS_CUDA_DEVICE_ALLOCATOR_H_

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "kernels/cuda/buffers.h"
#include "proto/bytes.h"

namespace millrace::cuda {

// What is taken of a budget. Thread-safe. Buffers share it with the allocator they came from.
class MemoryAccount {
 public:
  MemoryAccount(Bytes budget, Bytes overhead) : budget_(budget), overhead_(overhead) {}
  // Takes nothing and returns false where `size` would pass the budget.
  bool Take(Bytes size);
  void GiveBack(Bytes size);
  Bytes used() const;  // without the overhead
  Bytes budget() const { return budget_; }
  Bytes overhead() const { return overhead_; }

 private:
  const Bytes budget_;
  const Bytes overhead_;
  mutable absl::Mutex mutex_;
  Bytes used_ ABSL_GUARDED_BY(mutex_);
};

// Move-only; Allocate may be called from several threads. Buffers may outlive the allocator: they
// keep its account.
class DeviceAllocator {
 public:
  // `overhead` of the budget is what the context and libraries take outside of these allocations.
  // InvalidArgument where it is negative or above the budget. Makes no CUDA call.
  static absl::StatusOr<DeviceAllocator> Create(int device, Bytes budget, Bytes overhead);

  // ResourceExhausted, before any CUDA call and naming `what`, where the sizes of living buffers,
  // each rounded up to 2 MiB, and the overhead would pass the budget; as well where the driver is
  // short of memory. A buffer's bytes come back when it dies.
  absl::StatusOr<DeviceBuffer> Allocate(Bytes size, absl::string_view what) const;

  Bytes used() const { return account_->used(); }  // rounded sizes, without the overhead
  Bytes budget() const { return account_->budget(); }
  int device() const { return device_; }

 private:
  DeviceAllocator(int device, std::shared_ptr<MemoryAccount> account)
      : device_(device), account_(std::move(account)) {}
  int device_;
  std::shared_ptr<MemoryAccount> account_;
};

// Total less free memory of the device, of all processes, as the driver reports it. Opens a
// context.
absl::StatusOr<Bytes> DriverUsed(int device);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_DEVICE_ALLOCATOR_H_
