#include "kernels/bench/read_ceiling.h"

#include <algorithm>

#include "kernels/cuda/event.h"
#include "kernels/cuda/launch.cuh"

namespace millrace {
namespace {

constexpr int kThreads = 512, kBlocksPerMultiprocessor = 4;

__global__ void __launch_bounds__(kThreads) ReadKernel(const uint4* data, int64_t count, uint32_t* sink) {
  cuda::WaitForPrevious();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  uint32_t x = 0;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) x ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (x == 0x12345678u) *sink = x;
}

}  // namespace

absl::StatusOr<double> ReadCeiling(const cuda::DeviceBuffer& buffer, cuda::StreamView stream) {
  int multiprocessors = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaDeviceGetAttribute(
      &multiprocessors, cudaDevAttrMultiProcessorCount, buffer.device()));
  MILLRACE_ASSIGN_OR_RETURN(auto sink, cuda::DeviceBuffer::Create(buffer.device(), Bytes(256)));
  MILLRACE_ASSIGN_OR_RETURN(auto begin, cuda::Event::Create(buffer.device(), cuda::Event::Timing::kOn));
  MILLRACE_ASSIGN_OR_RETURN(auto end, cuda::Event::Create(buffer.device(), cuda::Event::Timing::kOn));
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    MILLRACE_RETURN_IF_ERROR(begin.Record(stream));
    MILLRACE_RETURN_IF_ERROR(cuda::Launch(
        ReadKernel, static_cast<unsigned>(kBlocksPerMultiprocessor * multiprocessors), kThreads, 0,
        stream, static_cast<const uint4*>(buffer.data()), buffer.size().count() / 16,
        static_cast<uint32_t*>(sink.data())));
    MILLRACE_RETURN_IF_ERROR(end.Record(stream));
    MILLRACE_RETURN_IF_ERROR(end.Wait(absl::Seconds(20)));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration took, end.Since(begin));
    best = std::max(best, static_cast<double>(buffer.size().count()) / absl::ToDoubleNanoseconds(took));
  }
  return best;
}

}  // namespace millrace
