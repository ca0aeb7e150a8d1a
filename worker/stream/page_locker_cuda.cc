// Locking of pages with CUDA.
#include <utility>

#include "kernels/cuda/buffers.h"
#include "proto/status_macros.h"
#include "worker/stream/host_memory.h"

namespace millrace {

PageLocker CudaPageLocker(int device) {
  return [device](HostBytes pages, PageAccess access) -> absl::StatusOr<std::shared_ptr<void>> {
    const auto cuda_access = access == PageAccess::kReadOnly
                                 ? cuda::HostRegistration::Access::kReadOnly
                                 : cuda::HostRegistration::Access::kReadWrite;
    MILLRACE_ASSIGN_OR_RETURN(
        cuda::HostRegistration locked,
        cuda::HostRegistration::Create(device, pages.data(),
                                       Bytes(static_cast<int64_t>(pages.size())), cuda_access));
    return std::static_pointer_cast<void>(
        std::make_shared<cuda::HostRegistration>(std::move(locked)));
  };
}

}  // namespace millrace
