// Small copies between pinned host memory and the device made by a kernel. The copy engine takes its
// copies one after the other: where it streams weights, a few rows would wait for hundreds of megabytes.
#ifndef MILLRACE_KERNELS_CUDA_HOST_COPY_H_
#define MILLRACE_KERNELS_CUDA_HOST_COPY_H_

#include "absl/status/status.h"
#include "kernels/cuda/stream.h"
#include "proto/bytes.h"

namespace millrace::cuda {

// Queues the copy. One of `to` and `from` may be pinned host memory (PinnedBuffer); both are 16-byte
// aligned, size a multiple of 4. The stream's device is current.
absl::Status CopyByKernel(void* to, const void* from, Bytes size, StreamView stream);

// to[i] += from[i] for `count` values, in the same way; `to` is device memory.
absl::Status AddByKernel(float* to, const float* from, int64_t count, StreamView stream);

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_HOST_COPY_H_
