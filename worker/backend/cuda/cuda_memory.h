// DeviceMemory on a GPU, and in host memory that GPUs read and write.
#ifndef MILLRACE_WORKER_BACKEND_CUDA_CUDA_MEMORY_H_
#define MILLRACE_WORKER_BACKEND_CUDA_CUDA_MEMORY_H_

#include <utility>

#include "kernels/cuda/buffers.h"
#include "worker/backend/backend.h"

namespace millrace {

class CudaMemory : public DeviceMemory {
 public:
  explicit CudaMemory(cuda::DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  std::byte* data() const override { return static_cast<std::byte*>(buffer_.data()); }
  Bytes size() const override { return buffer_.size(); }

 private:
  cuda::DeviceBuffer buffer_;
};

class HostMemory : public DeviceMemory {
 public:
  explicit HostMemory(cuda::PinnedBuffer buffer) : buffer_(std::move(buffer)) {}
  std::byte* data() const override { return static_cast<std::byte*>(buffer_.data()); }
  Bytes size() const override { return buffer_.size(); }

 private:
  cuda::PinnedBuffer buffer_;
};

}  // namespace millrace

#endif  // MILLRACE_WORKER_BACKEND_CUDA_CUDA_MEMORY_H_
