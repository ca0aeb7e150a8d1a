// Tensor core products and asynchronous copies, one instruction each, with what older chips do
// instead. Shapes and register layouts: PTX ISA, "Matrix multiply-accumulate operation using mma".
#ifndef MILLRACE_KERNELS_CUDA_MMA_CUH_
#define MILLRACE_KERNELS_CUDA_MMA_CUH_

#include <cuda_fp16.h>
#include <stdint.h>

namespace millrace::cuda {

// c[16 x 8] f32 += a[16 x 16] f16 * b[16 x 8] f16. Lane l (g = l / 4, t = l % 4) holds
// a0, a2: row g, columns 2t.. and 2t + 8..; a1, a3: row g + 8; b0, b1: column g, rows 2t.. and
// 2t + 8..; c0, c1: row g, columns 2t, 2t + 1; c2, c3: row g + 8.
__device__ __forceinline__ void MmaF16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                       uint32_t a3, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a2), "r"(a3), "r"(b1));
#endif
}

// Sixteen bytes from global to shared memory, both 16-byte aligned, past the first-level cache.
// Done after CopyWait; on chips before 8.0 done at once.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(to), "l"(global)
               : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}

__device__ __forceinline__ void CopyCommit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// All but this thread's latest `kPending` committed groups are done.
template <int kPending>
__device__ __forceinline__ void CopyWait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_MMA_CUH_
