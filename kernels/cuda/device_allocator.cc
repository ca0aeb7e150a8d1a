#include "kernels/cuda/device_allocator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

constexpr int64_t kGranularity = int64_t{2} << 20;  // what cudaMalloc takes from the driver at once

Bytes RoundedUp(Bytes size) {
  return Bytes((size.count() + kGranularity - 1) / kGranularity * kGranularity);
}

}  // namespace

bool MemoryAccount::Take(Bytes size) {
  absl::MutexLock lock(&mutex_);
  if (size > budget_ - overhead_ - used_) return false;
  used_ += size;
  return true;
}

void MemoryAccount::GiveBack(Bytes size) {
  absl::MutexLock lock(&mutex_);
  used_ -= size;
}

Bytes MemoryAccount::used() const {
  absl::MutexLock lock(&mutex_);
  return used_;
}

absl::StatusOr<DeviceAllocator> DeviceAllocator::Create(int device, Bytes budget, Bytes overhead) {
  if (overhead < Bytes(0) || overhead > budget) {
    return absl::InvalidArgumentError(absl::StrCat("gpu", device, ": an overhead of ",
                                                   overhead.count(), " bytes in a budget of ",
                                                   budget.count()));
  }
  return DeviceAllocator(device, std::make_shared<MemoryAccount>(budget, overhead));
}

absl::StatusOr<DeviceBuffer> DeviceAllocator::Allocate(Bytes size, absl::string_view what) const {
  MILLRACE_CHECK(size >= Bytes(0));
  // What is above the budget is refused before it is rounded: rounding cannot overflow.
  const Bytes counted = size > account_->budget() ? size : RoundedUp(size);
  if (!account_->Take(counted)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("gpu", device_, ": ", what, " asks for ", FormatBytes(size), " (",
                     size.count(), " bytes), ", FormatBytes(account_->used()),
                     " and an overhead of ", FormatBytes(account_->overhead()),
                     " are used of the budget of ", FormatBytes(account_->budget())));
  }
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Create(device_, size);
  if (!buffer.ok()) {
    account_->GiveBack(counted);
    return Annotate(buffer.status(), what);
  }
  buffer->CountIn(account_, counted);
  return buffer;
}

absl::StatusOr<Bytes> DriverUsed(int device) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  size_t free_bytes = 0, total_bytes = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaMemGetInfo(&free_bytes, &total_bytes));
  return Bytes(static_cast<int64_t>(total_bytes - free_bytes));
}

}  // namespace millrace::cuda
