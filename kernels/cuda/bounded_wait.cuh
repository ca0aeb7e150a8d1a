// For builds with MILLRACE_BOUNDED_WAITS: a wait that would never end stops the kernel with an
// error instead of holding the GPU. Compute capability 9.0 and up.
#ifndef MILLRACE_KERNELS_CUDA_BOUNDED_WAIT_CUH_
#define MILLRACE_KERNELS_CUDA_BOUNDED_WAIT_CUH_

#include <stdint.h>

namespace millrace::cuda {

#ifdef MILLRACE_BOUNDED_WAITS
// Until the phase of that parity of the barrier at `address` is complete; traps after two seconds.
// No call and no output: the compiler would let no product be under way across them.
__device__ __forceinline__ void WaitOrTrap(uint32_t address, uint32_t parity) {
  constexpr uint64_t kMost = 2'000'000'000;
  uint64_t begin = 0;
  for (;;) {
    uint32_t done;
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.b32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(address), "r"(parity)
        : "memory");
    if (done != 0) return;
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (begin == 0) begin = now;
    if (now - begin > kMost) asm volatile("trap;");
  }
}
#endif

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_BOUNDED_WAIT_CUH_
