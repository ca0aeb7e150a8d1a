// Hopper's warpgroup products: 64 x N x 16, weights from registers, activations from shared memory.
// Source: PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate". Compute
// capability 9.0 only (sm_90a): included by nothing that is compiled for another.
#ifndef MILLRACE_KERNELS_CUDA_WGMMA_CUH_
#define MILLRACE_KERNELS_CUDA_WGMMA_CUH_

#include <stdint.h>

namespace millrace::cuda {

// Columns of f16 in one row of an atom: eight rows of 128 bytes, the sixteen-byte pieces of row r
// in the order of their number XOR r. Atoms follow each other along the rows.
inline constexpr int kAtomColumns = 64, kAtomRows = 8, kAtomBytes = 1024;

// Names a matrix of atoms at a 1024-byte aligned address of shared memory; adding 2 to it moves on
// by sixteen columns inside the atoms.
__device__ __forceinline__ uint64_t AtomMatrix(uint32_t shared_address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kBetweenAtoms = static_cast<uint64_t>(kAtomBytes >> 4) << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kBetweenAtoms | kUnused | ((shared_address & 0x3ffff) >> 4);
}

// Before the first product, and after any write to its registers.
__device__ __forceinline__ void ProductFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void ProductCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All but the latest `kPending` committed groups are done.
template <int kPending>
__device__ __forceinline__ void ProductWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Values that went into `a` unchanged from memory, in registers of their own: the compiler knows
// nothing of products under way and may load the next values into registers that one still reads.
// What is computed after ProductWait stands in new ones anyway. `zero`: 0, unknown to the compiler.
__device__ __forceinline__ void MoveFragments(uint32_t (&a)[8], uint32_t zero) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    asm volatile("xor.b32 %0, %1, %2;" : "=r"(a[i]) : "r"(a[i]), "r"(zero));
  }
}

// Registers of a thread from here on, a multiple of 8; all warps of the warpgroup together. The
// block begins with the same number for each.
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// sum[64 x kColumns] += a[64 x 16] b[16 x kColumns]. Warp w of the warpgroup holds rows 16w .. 16w
// + 15 of a and sum; inside a warp a0..a3 lie as in MmaF16 (mma.cuh), and so does each group of
// eight columns of sum: sum[4e .. 4e + 3] are columns 8e + 2t, 8e + 2t + 1 of row g, then of row g
// + 8.
template <int kColumns>
struct WarpgroupProduct;

#define MILLRACE_LIST10(p) \
  "%" p "0,%" p "1,%" p "2,%" p "3,%" p "4,%" p "5,%" p "6,%" p "7,%" p "8,%" p "9"
#define MILLRACE_SUM4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define MILLRACE_SUM8(i) MILLRACE_SUM4(i), MILLRACE_SUM4(i + 4)
#define MILLRACE_SUM16(i) MILLRACE_SUM8(i), MILLRACE_SUM8(i + 8)
#define MILLRACE_SUM32(i) MILLRACE_SUM16(i), MILLRACE_SUM16(i + 16)
#define MILLRACE_SUM64(i) MILLRACE_SUM32(i), MILLRACE_SUM32(i + 32)
// `sums`: list of operands; a, b, c, d, e: numbers of the operands behind them.
#define MILLRACE_PRODUCT(columns, sums, a, b, c, d, e, operands)                              \
  template <>                                                                                 \
  struct WarpgroupProduct<columns> {                                                          \
    static constexpr int kSums = (columns) / 2;                                               \
    __device__ static __forceinline__ void Add(float (&sum)[kSums], uint32_t a0, uint32_t a1, \
                                               uint32_t a2, uint32_t a3, uint64_t matrix) {   \
      asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.f16.f16 {" sums      \
                   "}, {%" #a ",%" #b ",%" #c ",%" #d "}, %" #e ", 1, 1, 1, 0;"               \
                   : operands                                                                 \
                   : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(matrix));                        \
    }                                                                                         \
  };
#define MILLRACE_LIST(...) __VA_ARGS__

MILLRACE_PRODUCT(32, MILLRACE_LIST10("") ",%10,%11,%12,%13,%14,%15", 16, 17, 18, 19, 20,
                 MILLRACE_LIST(MILLRACE_SUM16(0)))
MILLRACE_PRODUCT(64,
                 MILLRACE_LIST10("") "," MILLRACE_LIST10("1") "," MILLRACE_LIST10("2") ",%30,%31",
                 32, 33, 34, 35, 36, MILLRACE_LIST(MILLRACE_SUM32(0)))
MILLRACE_PRODUCT(
    128,
    MILLRACE_LIST10("") "," MILLRACE_LIST10("1") "," MILLRACE_LIST10("2") "," MILLRACE_LIST10(
        "3") "," MILLRACE_LIST10("4") "," MILLRACE_LIST10("5") ",%60,%61,%62,%63",
    64, 65, 66, 67, 68, MILLRACE_LIST(MILLRACE_SUM64(0)))
MILLRACE_PRODUCT(176,
                 MILLRACE_LIST10("") "," MILLRACE_LIST10("1") "," MILLRACE_LIST10("2") ","
                 MILLRACE_LIST10("3") "," MILLRACE_LIST10("4") "," MILLRACE_LIST10("5") ","
                 MILLRACE_LIST10("6") "," MILLRACE_LIST10("7")
                 ",%80,%81,%82,%83,%84,%85,%86,%87",
                 88, 89, 90, 91, 92,
                 MILLRACE_LIST(MILLRACE_SUM64(0), MILLRACE_SUM16(64), MILLRACE_SUM8(80)))
MILLRACE_PRODUCT(256,
                 MILLRACE_LIST10("") "," MILLRACE_LIST10("1") "," MILLRACE_LIST10("2") ","
                 MILLRACE_LIST10("3") "," MILLRACE_LIST10("4") "," MILLRACE_LIST10("5") ","
                 MILLRACE_LIST10("6") "," MILLRACE_LIST10("7") "," MILLRACE_LIST10("8") ","
                 MILLRACE_LIST10("9") "," MILLRACE_LIST10("10") "," MILLRACE_LIST10("11")
                 ",%120,%121,%122,%123,%124,%125,%126,%127",
                 128, 129, 130, 131, 132, MILLRACE_LIST(MILLRACE_SUM64(0), MILLRACE_SUM64(64)))

#undef MILLRACE_PRODUCT
#undef MILLRACE_LIST
#undef MILLRACE_LIST10
#undef MILLRACE_SUM4
#undef MILLRACE_SUM8
#undef MILLRACE_SUM16
#undef MILLRACE_SUM32
#undef MILLRACE_SUM64

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_WGMMA_CUH_
