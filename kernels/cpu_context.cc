#include "kernels/cpu_context.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace millrace {
namespace {

#if defined(__x86_64__)
// Linux gives a process the 8 KiB of tile state only when it asks (kernel documentation,
// x86/xstate).
bool RequestTileState() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Leaf 7 of cpuid: AMX-BF16 and AMX-TILE.
bool ProcessorHasTiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;
  return (d & kBf16) != 0 && (d & kTiles) != 0;
}

bool HasTiles() {
  static const bool granted = ProcessorHasTiles() && HasAvx512Bf16() && RequestTileState();
  return granted;
}
#endif

}  // namespace

bool HasAvx512Bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

CpuIsa DetectCpuIsa() {
#if defined(__x86_64__)
  // The compiler's run-time checks include the operating system's support for the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    return HasTiles() ? CpuIsa::kAmx : CpuIsa::kAvx512;
  }
  if (avx2) return CpuIsa::kAvx2;
#endif
  return CpuIsa::kScalar;
}

absl::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar: return "scalar";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAmx: return "amx";
  }
  return "?";
}

}  // namespace millrace
