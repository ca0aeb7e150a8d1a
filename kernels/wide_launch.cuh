// Launching the wide kernel: as many clusters as the device has room for, with as many slots for
// weight tiles as fit beside the rest.
#ifndef MILLRACE_KERNELS_WIDE_LAUNCH_CUH_
#define MILLRACE_KERNELS_WIDE_LAUNCH_CUH_

#include "kernels/cuda/launch.cuh"
#include "kernels/wide_matmul_params.h"
#include "proto/status_macros.h"

namespace millrace::cuda {

template <typename Shape>
absl::Status LaunchResident(void (*kernel)(WideParams), WideParams p, StreamView stream) {
  int device = 0, limit = 0, multiprocessors = 0;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  constexpr int kBarriers =
      8 * (2 * static_cast<int>(Shape::kStages) + Shape::kConsumers * Shape::kMostSlots + 2);
  const int room = limit - kBarriers - Shape::kFixedBytes;
  p.slots = room / (Shape::kConsumers * p.slot_bytes);
  if (p.slots > Shape::kMostSlots) p.slots = Shape::kMostSlots;
  MILLRACE_CHECK(p.slots >= 2);
  const int shared = Shape::kFixedBytes + p.slots * Shape::kConsumers * p.slot_bytes;
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  LaunchShape launch;
  const int clusters = multiprocessors / Shape::kCluster, units = p.row_pairs * p.token_tiles;
  launch.grid = static_cast<unsigned>(Shape::kCluster * (units < clusters ? units : clusters));
  launch.block = Shape::kThreads;
  launch.shared = static_cast<size_t>(shared);
  launch.cluster = Shape::kCluster;
  return Launch(kernel, launch, stream, p);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_WIDE_LAUNCH_CUH_
