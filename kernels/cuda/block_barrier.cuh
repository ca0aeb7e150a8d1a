// Barriers in shared memory that count arrivals and copied bytes, across a cluster (mbarrier), and
// the copy that fills all its blocks. Compute capability 9.0 and up: included by nothing that is
// compiled for an older one. Source: PTX ISA, "mbarrier", "cp.async.bulk".
#ifndef MILLRACE_KERNELS_CUDA_BLOCK_BARRIER_CUH_
#define MILLRACE_KERNELS_CUDA_BLOCK_BARRIER_CUH_

#include <stdint.h>

#include "kernels/cuda/bounded_wait.cuh"

namespace millrace::cuda {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// One thread; visible to the cluster after its next barrier.
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void ArriveExpecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(bytes)
      : "memory");
}

// On the barrier at the same place in block `rank` of the cluster. Orders what the copy engine and
// the tensor cores do with shared memory, not ordinary writes to the cluster's memory: that would
// cost a fence.
__device__ __forceinline__ void ArriveAt(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
      "mbarrier.arrive.shared::cluster.b64 _, [there]; }" ::"r"(SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

// On a barrier of this block.
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// ArriveAt that also orders ordinary reads and writes before it.
__device__ __forceinline__ void ReleaseAt(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; "
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there]; }" ::"r"(
          SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}

// Stores v at `to` in the shared memory of block `rank` of the cluster, sixteen-byte aligned, and
// counts it on that block's `barrier`, both named by their places here.
__device__ __forceinline__ void SendFloat4(float* to, uint64_t* barrier, uint32_t rank, float4 v) {
  asm volatile(
      "{ .reg .b32 there, done; mapa.shared::cluster.u32 there, %0, %2; "
      "mapa.shared::cluster.u32 done, %1, %2; "
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 "
      "[there], {%3, %4, %5, %6}, [done]; }" ::"r"(SharedAddress(to)),
      "r"(SharedAddress(barrier)), "r"(rank), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
      : "memory");
}

// Until the phase of that parity is complete; phases begin with parity 0.
__device__ __forceinline__ void WaitFor(uint64_t* barrier, uint32_t parity) {
#ifdef MILLRACE_BOUNDED_WAITS
  WaitOrTrap(SharedAddress(barrier), parity);
#else
  asm volatile(
      "{ .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again; }" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
#endif
}

// `bytes` from global memory to the same place in the shared memory of blocks 0 .. kBlocks - 1 of
// the cluster, counted by each one's barrier at that place. Addresses and size are multiples of 16.
template <int kBlocks>
__device__ __forceinline__ void CopyToCluster(void* shared, const void* global, uint32_t bytes,
                                              uint64_t* barrier) {
  if constexpr (kBlocks == 1) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(SharedAddress(shared)),
        "l"(global), "r"(bytes), "r"(SharedAddress(barrier))
        : "memory");
  } else {
    constexpr uint16_t kMask = (1u << kBlocks) - 1;
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
        "[%0], [%1], "
        "%2, [%3], %4;" ::"r"(SharedAddress(shared)),
        "l"(global), "r"(bytes), "r"(SharedAddress(barrier)), "h"(kMask)
        : "memory");
  }
}

__device__ __forceinline__ uint32_t RankInCluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Threads of barrier `id` (1..15) wait for each other.
template <int kThreads>
__device__ __forceinline__ void NamedBarrier(int id) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "n"(kThreads) : "memory");
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_BLOCK_BARRIER_CUH_
