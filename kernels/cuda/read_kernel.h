// A kernel that only reads: what the memory of a device gives to plain loads.
#ifndef MILLRACE_KERNELS_CUDA_READ_KERNEL_H_
#define MILLRACE_KERNELS_CUDA_READ_KERNEL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

// Reads [data, data + bytes) once with 16-byte loads; what is left of a multiple of 16 is not read.
// `data` is 16-byte aligned; `sink`: [1] u32, written or not. Both on the stream's device, which is
// current. Asynchronous: the status is the launch's.
absl::Status ReadAll(const void* data, int64_t bytes, uint32_t* sink, int multiprocessors,
                     StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_READ_KERNEL_H_
