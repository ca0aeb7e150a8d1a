// CpuContext: what every CPU op is given: the threads it may use and the instructions it may use.
#ifndef MILLRACE_KERNELS_CPU_CONTEXT_H_
#define MILLRACE_KERNELS_CPU_CONTEXT_H_

#include <cstddef>

#include "absl/strings/string_view.h"
#include "kernels/thread_pool.h"

namespace millrace {

// Instruction sets the CPU kernels are built for, weakest first.
// kAvx2 = AVX2+FMA+F16C, kAvx512 = F/BW/VL/DQ/VNNI, kAmx = kAvx512 and AVX512-BF16, AMX tiles and
// bf16.
enum class CpuIsa { kScalar, kAvx2, kAvx512, kAmx };

// The strongest one that processor and operating system offer. The first call asks the system for
// the tile state, for the whole process; where it is refused the answer is kAvx512.
CpuIsa DetectCpuIsa();
// Whether the processor has AVX512-BF16, with or without tiles.
bool HasAvx512Bf16();
absl::string_view CpuIsaName(CpuIsa isa);

// Not owned: pool and scratch outlive the call. One CpuContext is used by one thread at a time.
struct CpuContext {
  ThreadPool* pool = nullptr;
  CpuIsa isa = CpuIsa::kScalar;
  // Scratch the ops may overwrite: at least the bytes each op's *ScratchBytes() asks for,
  // 64-byte aligned. CHECKed.
  std::byte* scratch = nullptr;
  size_t scratch_bytes = 0;
};

}  // namespace millrace

#endif  // MILLRACE_KERNELS_CPU_CONTEXT_H_
