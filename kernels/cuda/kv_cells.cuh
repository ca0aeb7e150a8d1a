// Reading a KV cache on the device: eight values of a row at a time, as f16.
//
// KvCells<type>: Raw is what a load leaves in registers, so that several loads can be under way
// before the first conversion. Load(row, dim) reads the values [dim, dim + 8) of a row, dim a
// multiple of 8; Halves(raw) gives them in order, two a word. Values beyond f16's range saturate.
#ifndef MILLRACE_KERNELS_CUDA_KV_CELLS_CUH_
#define MILLRACE_KERNELS_CUDA_KV_CELLS_CUH_

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/attention_mma.cuh"
#include "proto/dtype_id.h"

namespace millrace::cuda {

__host__ __device__ constexpr int64_t KvRowBytes(DType type, int head_dim) {
  return type == DType::kF32    ? 4 * static_cast<int64_t>(head_dim)
         : type == DType::kQ8_0 ? 34 * static_cast<int64_t>(head_dim / 32)
                                : 2 * static_cast<int64_t>(head_dim);
}

// Read once: does not push anything out of L1. Volatile: stays behind WaitForPrevious.
__device__ __forceinline__ uint4 LoadStreamed(const void* p) {
  uint4 x;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(__cvta_generic_to_global(p)));
  return x;
}

__device__ __forceinline__ uint32_t SaturatedHalves(float lo, float hi) {
  const __half2 most = __half2half2(__ushort_as_half(0x7bff));  // 65504
  return Bits(__hmax2(__hmin2(__floats2half2_rn(lo, hi), most), __hneg2(most)));
}

template <DType kType>
struct KvCells;

template <>
struct KvCells<DType::kF16> {
  using Raw = uint4;
  static __device__ __forceinline__ Raw Load(const uint8_t* row, int dim) {
    return LoadStreamed(row + 2 * dim);
  }
  static __device__ __forceinline__ uint4 Halves(const Raw& x) { return x; }
};

template <>
struct KvCells<DType::kBF16> {
  using Raw = uint4;
  static __device__ __forceinline__ Raw Load(const uint8_t* row, int dim) {
    return LoadStreamed(row + 2 * dim);
  }
  static __device__ __forceinline__ uint32_t Pair(uint32_t x) {
    return SaturatedHalves(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
  }
  static __device__ __forceinline__ uint4 Halves(const Raw& x) {
    return make_uint4(Pair(x.x), Pair(x.y), Pair(x.z), Pair(x.w));
  }
};

template <>
struct KvCells<DType::kF32> {
  using Raw = uint4;  // converted at once: twice the registers would not fit
  static __device__ __forceinline__ Raw Load(const uint8_t* row, int dim) {
    const uint4 a = LoadStreamed(row + 4 * dim), b = LoadStreamed(row + 4 * dim + 16);
    return make_uint4(SaturatedHalves(__uint_as_float(a.x), __uint_as_float(a.y)),
                      SaturatedHalves(__uint_as_float(a.z), __uint_as_float(a.w)),
                      SaturatedHalves(__uint_as_float(b.x), __uint_as_float(b.y)),
                      SaturatedHalves(__uint_as_float(b.z), __uint_as_float(b.w)));
  }
  static __device__ __forceinline__ uint4 Halves(const Raw& x) { return x; }
};

template <>
struct KvCells<DType::kQ8_0> {
  // The blocks of 34 bytes are only 2-byte aligned.
  struct Raw {
    uint32_t lo = 0, hi = 0;  // quants 0..3 and 4..7
    uint32_t d = 0;           // f16
  };
  static __device__ __forceinline__ Raw Load(const uint8_t* row, int dim) {
    const uint8_t* block = row + dim / 32 * 34;
    const uint16_t* q = reinterpret_cast<const uint16_t*>(block + 2 + dim % 32);
    Raw x;
    x.d = *reinterpret_cast<const uint16_t*>(block);
    const uint32_t q0 = q[0], q1 = q[1], q2 = q[2], q3 = q[3];
    x.lo = q0 | q1 << 16;
    x.hi = q2 | q3 << 16;
    return x;
  }
  // Bytes `which` of x (quants + 128) times d. 0x6400 | u is the half 1024 + u.
  static __device__ __forceinline__ uint32_t Pair(uint32_t x, uint32_t which, __half2 d) {
    const uint32_t bits = __byte_perm(x, 0x64646464u, which);
    const __half2 offset = __half2half2(__ushort_as_half(0x6480));  // 1152
    return Bits(__hmul2(__hsub2(*reinterpret_cast<const __half2*>(&bits), offset), d));
  }
  static __device__ __forceinline__ uint4 Halves(const Raw& x) {
    const __half2 d = __half2half2(__ushort_as_half(static_cast<unsigned short>(x.d)));
    const uint32_t lo = x.lo ^ 0x80808080u, hi = x.hi ^ 0x80808080u;
    return make_uint4(Pair(lo, 0x4140, d), Pair(lo, 0x4342, d), Pair(hi, 0x4140, d),
                      Pair(hi, 0x4342, d));
  }
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_KV_CELLS_CUH_
