#include "kernels/cuda/buffers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/device_allocator.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

size_t Count(Bytes size) {
  MILLRACE_CHECK(size.count() >= 0);
  return static_cast<size_t>(size.count());
}

}  // namespace

absl::StatusOr<DeviceBuffer> DeviceBuffer::Create(int device, Bytes size) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  void* p = nullptr;
  if (Count(size) > 0) {
    MILLRACE_RETURN_IF_ERROR(Annotate(MILLRACE_CUDA_STATUS(cudaMalloc(&p, Count(size))),
                                      absl::StrCat("asking for ", size.count(), " bytes")));
  }
  return DeviceBuffer(p, size, device);
}

void DeviceBuffer::Free::operator()(void* p) const {
  (void)cudaFree(p);
  if (account != nullptr) account->GiveBack(counted);
}

void DeviceBuffer::CountIn(std::shared_ptr<MemoryAccount> account, Bytes counted) {
  if (data_ == nullptr) return;  // zero bytes: nothing is counted and nothing freed
  data_.get_deleter() = Free{std::move(account), counted};
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Create(Bytes size) {
  void* p = nullptr;
  if (Count(size) > 0) {
    MILLRACE_RETURN_IF_ERROR(
        Annotate(MILLRACE_CUDA_STATUS(cudaHostAlloc(&p, Count(size), cudaHostAllocPortable)),
                 absl::StrCat("asking for ", size.count(), " pinned bytes")));
  }
  return PinnedBuffer(p, size);
}

absl::StatusOr<HostRegistration> HostRegistration::Create(int device, const void* data, Bytes size,
                                                          Access access) {
  MILLRACE_ASSIGN_OR_RETURN(const ScopedDevice scope, ScopedDevice::Create(device));
  if (Count(size) == 0) return HostRegistration(nullptr, size);
  unsigned flags = cudaHostRegisterPortable;
  if (access == Access::kReadOnly) {
    int supported = 0;
    MILLRACE_CUDA_RETURN_IF_ERROR(
        cudaDeviceGetAttribute(&supported, cudaDevAttrHostRegisterReadOnlySupported, device));
    if (supported == 0) {
      return absl::UnimplementedError(absl::StrCat(
          "gpu", device, " cannot register read-only host memory: copy through pinned memory"));
    }
    flags |= cudaHostRegisterReadOnly;
  }
  void* p = const_cast<void*>(data);
  MILLRACE_RETURN_IF_ERROR(
      Annotate(MILLRACE_CUDA_STATUS(cudaHostRegister(p, Count(size), flags)),
               absl::StrCat("registering ", size.count(), " bytes of host memory")));
  return HostRegistration(p, size);
}

absl::Status CopyAsync(void* to, const void* from, Bytes size, StreamView stream) {
  if (Count(size) == 0) return absl::OkStatus();
  return MILLRACE_CUDA_STATUS(
      cudaMemcpyAsync(to, from, Count(size), cudaMemcpyDefault, stream.get()));
}

absl::Status CopyRowsAsync(void* to, const void* from, const SpacedRows& rows, StreamView stream) {
  if (rows.count == 0) return absl::OkStatus();
  return MILLRACE_CUDA_STATUS(cudaMemcpy2DAsync(to, Count(rows.bytes), from, Count(rows.stride),
                                                Count(rows.bytes), static_cast<size_t>(rows.count),
                                                cudaMemcpyDefault, stream.get()));
}

}  // namespace millrace::cuda
