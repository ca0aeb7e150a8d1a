// WarpCopy: one warp's copies of consecutive bytes from global to shared memory, counted per slot.
// On compute capability 9.0 and up one lane hands them to the bulk copy engine and an mbarrier counts
// the bytes; before, every lane copies sixteen bytes at a time (cp.async).
// Source: PTX ISA, "cp.async.bulk" and "mbarrier".
#ifndef MILLRACE_KERNELS_CUDA_WARP_COPY_CUH_
#define MILLRACE_KERNELS_CUDA_WARP_COPY_CUH_

#include <stdint.h>

#include "kernels/cuda/bounded_wait.cuh"
#include "kernels/cuda/mma.cuh"

namespace millrace::cuda {

// `slots` slots, at most kMost, filled in turn. A round: Begin, any number of Copy, End; a slot is
// filled again only after its last round was waited for and read.
template <int kMost>
class WarpCopy {
 public:
  // `barriers`: kMost of this warp's own, in shared memory. All lanes call everything together.
  __device__ WarpCopy(uint64_t* barriers, int lane, int slots)
      : barriers_(barriers), lane_(lane), slots_(slots) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (lane == 0) {
      for (int i = 0; i < kMost; ++i) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(Address(barriers + i)) : "memory");
      }
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
  }

  // `bytes`: of all copies of the round together.
  __device__ __forceinline__ void Begin(int slot, uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (lane_ == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                       Address(barriers_ + slot)),
                   "r"(bytes)
                   : "memory");
    }
#endif
  }

  // Both addresses and `bytes` are multiples of 16.
  __device__ __forceinline__ void Copy(int slot, uint8_t* shared, const uint8_t* global,
                                       uint32_t bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if (lane_ == 0) {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
              Address(shared)),
          "l"(global), "r"(bytes), "r"(Address(barriers_ + slot))
          : "memory");
    }
#else
    for (uint32_t at = 16 * lane_; at < bytes; at += 512) CopyAsync16(shared + at, global + at);
#endif
  }

  // Called once a round, also of rounds past the last real one, copies or not.
  __device__ __forceinline__ void End() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < 900
    CopyCommit();
#endif
  }

  // The slot's bytes are in shared memory, visible to all lanes. `parity`: of the number of times the
  // slot was waited for before. Slots are waited for in turn.
  __device__ __forceinline__ void Wait(int slot, uint32_t parity) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const uint32_t barrier = Address(barriers_ + slot);
#ifdef MILLRACE_BOUNDED_WAITS
    WaitOrTrap(barrier, parity);
#else
    uint32_t done = 0;
    while (done == 0) {
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, "
          "p; }"
          : "=r"(done)
          : "r"(barrier), "r"(parity)
          : "memory");
    }
#endif
#else
    if (slots_ == 1) {
      CopyWait<0>();
    } else if (slots_ == 2) {
      CopyWait<1>();
    } else if (slots_ == 3) {
      CopyWait<2>();
    } else {
      static_assert(kMost <= 4, "one case for each number of slots");
      CopyWait<3>();
    }
    __syncwarp();
#endif
  }

 private:
  __device__ static uint32_t Address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
  }
  uint64_t* const barriers_;
  const int lane_, slots_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_WARP_COPY_CUH_
