// Blocks of a cluster: their barrier, and reading each other's shared memory (compute capability 9.0 and
// up). Source: PTX ISA, "barrier.cluster", "mapa".
#ifndef MILLRACE_KERNELS_CUDA_CLUSTER_CUH_
#define MILLRACE_KERNELS_CUDA_CLUSTER_CUH_

#include <cuda_runtime.h>
#include <stdint.h>

namespace millrace::cuda {

// Waits for all threads of the cluster that have not ended; what they wrote before is visible.
__device__ __forceinline__ void ClusterBarrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
#endif
}

// What stands at the place of `mine` in the shared memory of block `rank` of the cluster.
__device__ __forceinline__ uint32_t InBlock(const void* mine, uint32_t rank) {
  uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(mine));
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
#endif
  return address;
}

__device__ __forceinline__ float4 LoadFloat4(uint32_t cluster_address) {
  float4 v = make_float4(0, 0, 0, 0);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(cluster_address)
               : "memory");
#endif
  return v;
}

__device__ __forceinline__ float2 LoadFloat2(uint32_t cluster_address) {
  float2 v = make_float2(0, 0);
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "r"(cluster_address)
               : "memory");
#endif
  return v;
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_CLUSTER_CUH_
