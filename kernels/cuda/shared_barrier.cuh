// Barriers in shared memory that count arrivals: one call a thread, compute capability 9.0 and up.
// Source: PTX ISA, "mbarrier".
#ifndef MILLRACE_KERNELS_CUDA_SHARED_BARRIER_CUH_
#define MILLRACE_KERNELS_CUDA_SHARED_BARRIER_CUH_

#include <stdint.h>

namespace millrace::cuda {

// Before any other use, with a barrier of the block in between.
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, uint32_t arrivals) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
#endif
}

// What this thread wrote before is seen by who waits for the round.
__device__ __forceinline__ void ArriveAt(uint64_t* barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
#endif
}

// Until the round of this parity is complete: 0 for the first, then 1, 0, ...
__device__ __forceinline__ void WaitAt(uint64_t* barrier, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(barrier));
  uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, "
        "p; }"
        : "=r"(done)
        : "r"(at), "r"(parity)
        : "memory");
  }
#endif
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_SHARED_BARRIER_CUH_
