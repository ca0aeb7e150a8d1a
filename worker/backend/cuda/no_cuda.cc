// What takes the CUDA backend's place in a build without CUDA.
#include "worker/backend/cuda/cuda_backend.h"

namespace millrace {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const ModelSpec& model,
                                                         const BackendOptions& options) {
  return absl::UnimplementedError(
      "this build has no CUDA: install the CUDA toolkit and build again, or plan with --devices cpu");
}

}  // namespace millrace
