// Packets: 32 bits of a row and a flag in one 64-bit word, written and read at once. Who finds the flag he
// waits for has the data too: blocks hand rows to each other without fences and counters, in about the
// time of one access to the second-level cache. Source: PTX ISA, memory consistency model: accesses of a
// 64-bit scalar are single-copy atomic.
#ifndef MILLRACE_KERNELS_CUDA_PACKETS_CUH_
#define MILLRACE_KERNELS_CUDA_PACKETS_CUH_

#include <stdint.h>

namespace millrace::cuda {

constexpr uint64_t kPacketNanoseconds = 10'000'000'000;

__device__ __forceinline__ void StorePacket(uint64_t* at, uint32_t bits, uint32_t flag) {
  const uint64_t word = static_cast<uint64_t>(flag) << 32 | bits;
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(word) : "memory");
}

__device__ __forceinline__ uint64_t LoadPacket(const uint64_t* at) {
  uint64_t word;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(word) : "l"(at) : "memory");
  return word;
}

// The bits of the packet with this flag; `word`: what LoadPacket found before. A wait of ten seconds ends
// with a trap: the block that writes does not run.
__device__ __forceinline__ uint32_t AwaitPacket(const uint64_t* at, uint64_t word, uint32_t flag) {
  uint64_t begin = 0;
  for (uint32_t tries = 1; static_cast<uint32_t>(word >> 32) != flag; ++tries) {
    word = LoadPacket(at);
    if (tries % 65536 != 0) continue;
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (begin == 0) begin = now;
    if (now - begin > kPacketNanoseconds) asm volatile("trap;");
  }
  return static_cast<uint32_t>(word);
}

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_PACKETS_CUH_
