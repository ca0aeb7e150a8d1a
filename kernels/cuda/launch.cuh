// Launching kernels so that one may start while the one before it drains (programmatic dependent
// launch, compute capability 9.0 and up; elsewhere the same code runs one kernel after the other).
//
// Rules for every kernel launched by Launch:
// 1. Before it touches anything that earlier work on the stream wrote or reads, each thread that
//    does calls WaitForPrevious(). What no kernel writes (weights) may be read before.
// 2. Every block calls WaitForPrevious() before it ends, so that waiting for a kernel means waiting
//    for all those before it.
// 3. LetNextStart() may come any time: the next kernel's blocks then take free places early.
#ifndef MILLRACE_KERNELS_CUDA_LAUNCH_CUH_
#define MILLRACE_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <utility>

#include "absl/status/status.h"
#include "kernels/cuda/status.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

__device__ __forceinline__ void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

__device__ __forceinline__ void LetNextStart() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// Round to nearest even; beyond f16's range: its largest value of that sign. NaN stays NaN.
__device__ __forceinline__ __half SaturatedHalf(float v) {
  return __float2half_rn(v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v);
}

// A multiprocessor runs kernels side by side only where they agree on how its memory is divided: those
// that follow each other at decode all ask for as much shared memory as there is.
template <typename... Params>
absl::Status PreferSharedMemory(void (*kernel)(Params...)) {
  return MILLRACE_CUDA_STATUS(cudaFuncSetAttribute(
      kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
}

// How Launch starts a kernel. `shared` bytes of dynamic shared memory; above 48 KiB the caller has
// raised the kernel's limit (cudaFuncSetAttribute). `cluster`: consecutive blocks along x that share
// a cluster, on compute capability 9.0 and up. `cooperative`: all blocks run at once, or the launch fails.
struct LaunchShape {
  dim3 grid, block;
  size_t shared = 0;
  unsigned cluster = 1;
  bool cooperative = false;
};

// Asynchronous: the status is the launch's. The stream's device is current.
template <typename... Params, typename... Args>
absl::Status Launch(void (*kernel)(Params...), const LaunchShape& shape, StreamView stream,
                    Args&&... args) {
  int device = 0, major = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  cudaLaunchAttribute attributes[3] = {};
  unsigned count = 0;
  if (major >= 9) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (major >= 9 && shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {shape.cluster, 1, 1};
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared;
  config.stream = stream.get();
  config.attrs = attributes;
  config.numAttrs = count;
  return MILLRACE_CUDA_STATUS(
      cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...));
}

template <typename... Params, typename... Args>
absl::Status Launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
                    StreamView stream, Args&&... args) {
  return Launch(kernel, LaunchShape{grid, block, shared, 1, false}, stream, std::forward<Args>(args)...);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_LAUNCH_CUH_
