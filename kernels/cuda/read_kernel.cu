#include "kernels/cuda/read_kernel.h"
#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kUnroll = 4;  // loads in flight per thread

__global__ void __launch_bounds__(kThreads)
    ReadKernel(const uint4* __restrict__ data, int64_t count, uint32_t* sink) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  uint32_t bits = 0;
  for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = __ldcs(data + i + u * step);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) bits |= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  for (; i < count; i += step) {
    const uint4 v = __ldcs(data + i);
    bits |= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (bits == 0x9e3779b9u) *sink = bits;  // keeps the loads
}

}  // namespace

absl::Status ReadAll(const void* data, int64_t bytes, uint32_t* sink, int multiprocessors,
                     StreamView stream) {
  MILLRACE_CHECK(bytes >= 0 && multiprocessors > 0);
  const unsigned blocks = static_cast<unsigned>(multiprocessors * kBlocksPerMultiprocessor);
  ReadKernel<<<blocks, kThreads, 0, stream.get()>>>(static_cast<const uint4*>(data), bytes / 16,
                                                    sink);
  return MILLRACE_CUDA_STATUS(cudaGetLastError());
}

}  // namespace millrace::cuda
