// Picks the table of ops kernels for a context.
#ifndef MILLRACE_KERNELS_OPS_DISPATCH_H_
#define MILLRACE_KERNELS_OPS_DISPATCH_H_

#include "kernels/cpu_context.h"
#include "kernels/ops_kernels.h"

namespace millrace {

inline const OpsKernels& OpsKernelsFor(const CpuContext& ctx) {
#if defined(__x86_64__)
  if (ctx.isa >= CpuIsa::kAvx512) return Avx512OpsKernels();
  if (ctx.isa == CpuIsa::kAvx2) return Avx2OpsKernels();
#endif
  return ScalarOpsKernels();
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_OPS_DISPATCH_H_
