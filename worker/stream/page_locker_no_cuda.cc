// What takes the place of page_locker_cuda.cc in a build without CUDA.
#include "worker/stream/host_memory.h"

namespace millrace {

PageLocker CudaPageLocker(int device) {
  return [](HostBytes, PageAccess) -> absl::StatusOr<std::shared_ptr<void>> {
    return absl::UnimplementedError("this build has no CUDA");
  };
}

}  // namespace millrace
