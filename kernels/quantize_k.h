// One block of a K type from 256 values, per instruction set. Used by quantize.cc.
#ifndef MILLRACE_KERNELS_QUANTIZE_K_H_
#define MILLRACE_KERNELS_QUANTIZE_K_H_

#include <stdint.h>

#include "kernels/cpu_context.h"

namespace millrace {

inline constexpr int kSuperBlock = 256;

// x: [kSuperBlock] finite values; out: a block of the type. False: x is too large for f16 scales.
using QuantizeBlock = bool (*)(const float* x, uint8_t* out);

// Every instruction set's table makes the same bytes.
struct QuantizeKernels {
  QuantizeBlock q4_k, q5_k, q6_k;
};
const QuantizeKernels& ScalarQuantizeKernels();
const QuantizeKernels& Avx2QuantizeKernels();  // on x86-64 only

inline const QuantizeKernels& QuantizeKernelsFor(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa >= CpuIsa::kAvx2) return Avx2QuantizeKernels();
#endif
  return ScalarQuantizeKernels();
}

}  // namespace millrace

#endif  // MILLRACE_KERNELS_QUANTIZE_K_H_
