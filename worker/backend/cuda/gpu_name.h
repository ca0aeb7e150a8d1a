// Names of GPUs: "gpu1" and its logical device "gpu1#2" are hardware device 1.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_GPU_NAME_H_
#define MILLRACE_WORKER_BACKEND_CUDA_GPU_NAME_H_

#include "absl/status/statusor.h"
#include "proto/ids.h"

namespace millrace {

// InvalidArgument for what is not a GPU's name.
absl::StatusOr<int> HardwareIndex(const DeviceId& id);

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_GPU_NAME_H_
