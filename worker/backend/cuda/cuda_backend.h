// The CUDA backend: a whole stage resident on one GPU.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_
#define MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_

#include "worker/backend/backend.h"

namespace millrace {

// InvalidArgument: no such GPU. Unimplemented: this build has no CUDA, or the model's shapes are not
// run by it. ResourceExhausted: the budget or the device is short of memory, sizes named. Leaves the
// device current on the calling thread.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const ModelSpec& model,
                                                         const BackendOptions& options);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_
