#include <algorithm>

#include "kernels/cuda/host_copy.h"
#include "kernels/cuda/launch.cuh"
#include "proto/status_macros.h"

namespace millrace::cuda {
namespace {

constexpr int kThreads = 256;
// Enough loads under way for the link's latency, few enough to leave the device to others.
constexpr int64_t kMostBlocks = 64;

__global__ void __launch_bounds__(kThreads)
    CopyKernel(uint4* to, const uint4* from, int64_t quads, int rest) {
  // The next kernel does not start before the end: some read a pass's metadata without waiting.
  WaitForPrevious();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < quads; i += step) to[i] = __ldcv(from + i);
  if (first < rest) {
    reinterpret_cast<uint32_t*>(to + quads)[first] =
        __ldcv(reinterpret_cast<const uint32_t*>(from + quads) + first);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddKernel(float* to, const float* from, int64_t quads, int rest) {
  WaitForPrevious();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < quads; i += step) {
    const float4 more = __ldcv(reinterpret_cast<const float4*>(from) + i);
    float4 sum = reinterpret_cast<float4*>(to)[i];
    sum.x += more.x;
    sum.y += more.y;
    sum.z += more.z;
    sum.w += more.w;
    reinterpret_cast<float4*>(to)[i] = sum;
  }
  if (first < rest) to[4 * quads + first] += __ldcv(from + 4 * quads + first);
}

unsigned BlocksFor(int64_t quads) {
  return static_cast<unsigned>(
      std::clamp<int64_t>((quads + kThreads - 1) / kThreads, 1, kMostBlocks));
}

}  // namespace

absl::Status CopyByKernel(void* to, const void* from, Bytes size, StreamView stream) {
  MILLRACE_CHECK(size.count() % 4 == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0 &&
                 reinterpret_cast<uintptr_t>(from) % 16 == 0);
  if (size == Bytes(0)) return absl::OkStatus();
  const int64_t quads = size.count() / 16;
  const int rest = static_cast<int>(size.count() % 16 / 4);
  return Launch(CopyKernel, dim3(BlocksFor(quads)), dim3(kThreads), 0, stream,
                static_cast<uint4*>(to), static_cast<const uint4*>(from), quads, rest);
}

absl::Status AddByKernel(float* to, const float* from, int64_t count, StreamView stream) {
  MILLRACE_CHECK(reinterpret_cast<uintptr_t>(to) % 16 == 0 &&
                 reinterpret_cast<uintptr_t>(from) % 16 == 0);
  if (count == 0) return absl::OkStatus();
  const int64_t quads = count / 4;
  return Launch(AddKernel, dim3(BlocksFor(quads)), dim3(kThreads), 0, stream, to, from, quads,
                static_cast<int>(count % 4));
}

}  // namespace millrace::cuda
