// What attention needs beside kernels/cuda/mma.cuh to feed the tensor cores. Lane numbering of the
// fragments as in the PTX manual: g = lane / 4, t = lane % 4.
#ifndef MILLRACE_KERNELS_CUDA_ATTENTION_MMA_CUH_
#define MILLRACE_KERNELS_CUDA_ATTENTION_MMA_CUH_

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace millrace::cuda {

__device__ __forceinline__ uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices of b16; lane i gives the address of row i % 8 of matrix i / 8 (16 bytes,
// aligned). r[m] holds row g, columns 2t and 2t + 1 of matrix m.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// The same transposed: rows 2t and 2t + 1, column g.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address));
}

// An 8 x 8 matrix of b16 held by the warp (row g, columns 2t and 2t + 1 a lane), transposed.
__device__ __forceinline__ uint32_t Transpose8x8(uint32_t x) {
  uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// 16 bytes from device memory to shared memory, zeros unless `use`: then `from` may be any address.
// Visible to the block after CopiesDone() of the copying threads and a barrier.
__device__ __forceinline__ void CopyToShared(uint32_t to, const void* from, bool use) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  const uint4 x = use ? *static_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0);
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z),
               "r"(x.w)
               : "memory");
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(use ? 16 : 0)
               : "memory");
#endif
}

// Waits for all of the thread's own copies.
__device__ __forceinline__ void CopiesDone() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ uint32_t Bits(__half2 x) { return *reinterpret_cast<uint32_t*>(&x); }

// lo in the lower half, round to nearest even.
__device__ __forceinline__ uint32_t PackHalves(float lo, float hi) {
  return Bits(__floats2half2_rn(lo, hi));
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_ATTENTION_MMA_CUH_
